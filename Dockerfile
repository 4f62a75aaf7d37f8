# Images with nothing else but what a static binary reads: root certificates and
# time zones. Build signet's with
#
#   docker build -t signet .
#
# and those of the samples with --target orders and --target storefront.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
# With .git, from which the binary takes its version.
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /out/ ./cmd/signet ./cmd/orders ./cmd/storefront && mkdir /out/data

FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# Below GOROOT they serve TZ, too.
COPY --from=build /usr/local/go/lib/time/zoneinfo.zip /usr/local/go/lib/time/
ENV GOROOT=/usr/local/go
COPY LICENSE NOTICE /
# In the samples' images it is their health check.
COPY --from=build /out/signet /signet
USER 65532:65532

FROM base AS orders
COPY --from=build /out/orders /orders
COPY --from=build --chown=65532:65532 /out/data /data
WORKDIR /data
VOLUME /data
EXPOSE 8090
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/signet", "health", "--admin-listen", "127.0.0.1:8090"]
ENTRYPOINT ["/orders"]

FROM base AS storefront
COPY --from=build /out/storefront /storefront
EXPOSE 8100
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/signet", "health", "--admin-listen", "127.0.0.1:8100"]
ENTRYPOINT ["/storefront"]

FROM base AS signet
COPY --from=build --chown=65532:65532 /out/data /data
# SQLite database and key-encryption key, unless configured otherwise.
VOLUME /data
ENV SIGNET_DATA=/data SIGNET_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/signet", "health"]
ENTRYPOINT ["/signet"]
CMD ["serve"]
