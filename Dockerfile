# signet in an image with nothing else but what it reads: root certificates and
# time zones. Build it with: docker build -t signet .
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
# With .git, from which the binary takes its version.
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /out/signet ./cmd/signet && mkdir /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/go/lib/time/zoneinfo.zip /usr/local/go/lib/time/
ENV ZONEINFO=/usr/local/go/lib/time/zoneinfo.zip
COPY --from=build /out/signet /signet
COPY LICENSE NOTICE /
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
# SQLite database and key-encryption key, unless configured otherwise.
VOLUME /data
ENV SIGNET_DATA=/data SIGNET_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/signet", "health"]
ENTRYPOINT ["/signet"]
CMD ["serve"]
