#!/bin/sh
# What one, two and three replicas cost over one PostgreSQL whose commits wait
# for the disk: rounds in which each number of replicas has its turn, so that a
# busy minute meets all of them alike.
#
#   conformance/load/replicas.sh [seconds for each figure, 4] [rounds, 3]
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-4} rounds=${2:-3}
if [ -z "${FIGURES:-}" ]; then
	FIGURES=$(mktemp -d)
	export FIGURES
	trap 'rm -rf "$FIGURES"' EXIT
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$FIGURES/" ./cmd/signet ./conformance/load ./storage/storagetest/pg
	"$FIGURES/pg" -- sh "$0" "$seconds" "$rounds"
	exit
fi

PATH=$FIGURES:$PATH
export SIGNET_DATA="$FIGURES/data" SIGNET_ISSUER=http://localhost:18080 SIGNET_DATABASE="$SIGNET_TEST_POSTGRES" SIGNET_KEK_FILE="$FIGURES/kek"
mkdir "$SIGNET_DATA"
(umask 077 && head -c 32 /dev/urandom | base64 > "$SIGNET_KEK_FILE")
# The first process of the PostgreSQL that was started for this script.
database=$(for shell in $(pgrep -P $PPID); do pgrep -P "$shell" -x postgres || true; done)

servers=
trap 'kill -INT $servers; wait' EXIT
for i in 1 2 3; do
	signet serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --migrate > "$SIGNET_DATA/ready$i" 2> "$SIGNET_DATA/log$i" &
	servers="$servers $!"
	until [ -s "$SIGNET_DATA/ready$i" ]; do
		kill -0 $! || { cat "$SIGNET_DATA/log$i"; exit 1; }
		sleep 0.1
	done
done
set -- $servers

signet resource create https://load.example --name Load --scope load:run > "$SIGNET_DATA/out"
signet client create --id load --name Load --grant client_credentials --grant authorization_code --grant refresh_token \
	--redirect-uri https://load.example/cb --id-token-alg ES256 --scope load:run --scope openid --scope profile --scope offline_access --json |
	sed -n 's/.*"client_secret": *"\([^"]*\)".*/\1/p' > "$SIGNET_DATA/secret"
head -c 15 /dev/urandom | base64 > "$SIGNET_DATA/password"
signet user create load --email load@load.example --password-stdin < "$SIGNET_DATA/password" > "$SIGNET_DATA/out"

# measure REPLICAS WORKLOAD [flags]: a line of figures.
measure() {
	n=$1 workload=$2
	shift 2
	set -- "$@" --issuer "$SIGNET_ISSUER" --workload "$workload" --client-id load --client-secret-file "$SIGNET_DATA/secret" \
		--user load --password-file "$SIGNET_DATA/password" --redirect-uri https://load.example/cb \
		--concurrency 12 --warmup 1s --duration "${seconds}s" --database-pid "$database"
	i=0
	for pid in $servers; do
		i=$((i + 1))
		[ $i -le "$n" ] || break
		set -- "$@" --pid "$pid" --replica "$(sed 's/.*"listen":"\([^"]*\)".*/\1/' "$SIGNET_DATA/ready$i")"
	done
	load "$@" > "$SIGNET_DATA/report" || cat "$SIGNET_DATA/report" >&2
	awk -v workload="$workload" -v n="$n" '
		/^requests\/s/   { rate = $2; gsub(",", "", rate) }
		/^p50/           { split($0, p, / +/); p50 = p[8]; p99 = p[12] }
		/^server CPU/    { cpu = $5 }
		/^database CPU/  { db = $3 }
		END { print workload, n, rate, p50, p99, cpu, db }' "$SIGNET_DATA/report" >> "$SIGNET_DATA/figures"
}

for round in $(seq "$rounds"); do
	for workload in client-credentials introspection refresh code; do
		scope=
		case $workload in client-credentials | introspection) scope="--scope load:run" ;; esac
		for n in 1 2 3; do
			measure "$n" "$workload" $scope
		done
	done
done
echo "$(uname -sm), $(getconf _NPROCESSORS_ONLN) processors, $rounds rounds of ${seconds} s"
echo
echo '| workload | replicas | requests/s | p50 / p99 ms | CPU s per 1,000: servers | PostgreSQL |'
echo '|---|---|---|---|---|---|'
awk '{ key = $1 " | " $2; if (!(key in count)) order[++keys] = key
		count[key]++; rate[key] += $3; p50[key] += $4; p99[key] += $5; cpu[key] += $6; db[key] += $7 }
	END { for (i = 1; i <= keys; i++) { k = order[i]; c = count[k]
		printf "| %s | %d | %.1f / %.0f | %.3f | %.3f |\n", k, rate[k]/c, p50[k]/c, p99[k]/c, cpu[k]/c, db[k]/c } }' "$SIGNET_DATA/figures"
