#!/bin/sh
# The table of docs/performance.md, measured here and now: every workload on a
# fresh SQLite file and on a throwaway PostgreSQL whose commits wait for the
# disk, each beside what net/http and one signature cost in the same minutes.
#
#   conformance/load/figures.sh [seconds for each workload, 8]
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-8}
if [ -z "${FIGURES:-}" ]; then
	FIGURES=$(mktemp -d)
	export FIGURES
	trap 'rm -rf "$FIGURES"' EXIT
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$FIGURES/" ./cmd/signet ./conformance/load ./storage/storagetest/pg
	sh "$0" "$seconds" sqlite
	"$FIGURES/pg" -- sh "$0" "$seconds" postgres
	exit
fi

PATH=$FIGURES:$PATH
export SIGNET_DATA="$FIGURES/$2" SIGNET_ISSUER="http://localhost:${PORT:-18080}"
mkdir "$SIGNET_DATA"
if [ "$2" = postgres ]; then
	export SIGNET_DATABASE="$SIGNET_TEST_POSTGRES" SIGNET_KEK_FILE="$SIGNET_DATA/kek"
	(umask 077 && head -c 32 /dev/urandom | base64 > "$SIGNET_KEK_FILE")
fi

# The server logs to a file, as one does.
signet serve --listen "127.0.0.1:${PORT:-18080}" --admin-listen 127.0.0.1:0 --migrate > "$SIGNET_DATA/ready" 2> "$SIGNET_DATA/log" &
server=$!
load --bare 127.0.0.1:0 > "$SIGNET_DATA/bare" &
bare=$!
trap 'kill -INT $server $bare; wait' EXIT
until [ -s "$SIGNET_DATA/ready" ] && [ -s "$SIGNET_DATA/bare" ]; do
	kill -0 $server || { cat "$SIGNET_DATA/log"; exit 1; }
	sleep 0.1
done

signet resource create https://load.example --name Load --scope load:run > "$SIGNET_DATA/out"
signet resource create https://ed.example --name Ed --scope ed:run --alg EdDSA > "$SIGNET_DATA/out"
for alg in ES256 RS256; do
	signet client create --id $alg --name Load --grant client_credentials --grant authorization_code --grant refresh_token \
		--redirect-uri https://load.example/cb --id-token-alg $alg --scope load:run --scope ed:run --scope openid \
		--scope profile --scope email --scope offline_access --json |
		sed -n 's/.*"client_secret": *"\([^"]*\)".*/\1/p' > "$SIGNET_DATA/$alg"
done
head -c 15 /dev/urandom | base64 > "$SIGNET_DATA/password"
signet user create load --email load@load.example --password-stdin < "$SIGNET_DATA/password" > "$SIGNET_DATA/out"

# row NAME PID ISSUER CLIENT WORKLOAD [flags]: one line of the table.
row() {
	name=$1 pid=$2 issuer=$3 client=$4 workload=$5
	shift 5
	load --issuer "$issuer" --workload "$workload" --client-id "$client" --client-secret-file "$SIGNET_DATA/ES256" \
		--user load --password-file "$SIGNET_DATA/password" --redirect-uri https://load.example/cb \
		--pid "$pid" --duration "${seconds}s" "$@" > "$SIGNET_DATA/report" || cat "$SIGNET_DATA/report"
	awk -v name="$name" '
		/^requests\/s/         { rate = $2 }
		/^p50/                 { split($0, p, / +/); p50 = p[8]; p99 = p[12] }
		/^server CPU/          { cpu = $5 }
		/^server peak memory/  { rss = $4 }
		/^errors, /            { name = name " (" $0 ")" }
		END { printf "| %s | %s | %s / %s | %s | %.0f MB |\n", name, rate, p50, p99, cpu, rss }' "$SIGNET_DATA/report"
}

yardstick() {
	issuer=$(sed 's/.*server at \([^,]*\),.*/\1/' "$SIGNET_DATA/bare")
	row "bare net/http: a document" $bare "$issuer" bare discovery
	row "bare net/http: one ES256 signature" $bare "$issuer" bare client-credentials
}

printf '\n%s on %s, %s processors\n\n' "$2" "$(uname -sm)" "$(getconf _NPROCESSORS_ONLN)"
echo '| workload | requests/s | p50 / p99 ms | server CPU s per 1,000 | peak RSS so far |'
echo '|---|---|---|---|---|'
yardstick
row "discovery" $server "$SIGNET_ISSUER" ES256 discovery
row "JWKS" $server "$SIGNET_ISSUER" ES256 jwks
row "client credentials, ES256" $server "$SIGNET_ISSUER" ES256 client-credentials --scope load:run
row "client credentials, EdDSA" $server "$SIGNET_ISSUER" ES256 client-credentials --scope ed:run
row "introspection" $server "$SIGNET_ISSUER" ES256 introspection --scope load:run
yardstick
row "userinfo" $server "$SIGNET_ISSUER" ES256 userinfo
row "refresh, ES256 ID token" $server "$SIGNET_ISSUER" ES256 refresh
row "code + PKCE, ES256 ID token" $server "$SIGNET_ISSUER" ES256 code
row "code + PKCE, RS256 ID token" $server "$SIGNET_ISSUER" RS256 code --client-secret-file "$SIGNET_DATA/RS256"
row "login by form, argon2id, and its code" $server "$SIGNET_ISSUER" ES256 login
