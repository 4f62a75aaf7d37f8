// Package proof holds claims about running processes, each proven on the
// program as it is built: one server over a SQLite file, or several replicas
// over one PostgreSQL, killed, restarted and raced against, and then judged by
// what their clients were told. It has tests only.
//
// A test begins with onBoth, which runs it on a deployment on either database:
//
//	onBoth(t, func(t *testing.T, d *deployment) {
//		d.start(d.replicas())                     // 3 on PostgreSQL, 1 on SQLite
//		app := d.app("shop")                      // registers, by the command line
//		b := d.browser(d.person("ada"))           // a browser of its own
//		code := b.code(app)                       // through the real pages
//		tokens := app.redeem(code)                // at any server that is up
//		d.servers()[0].kill()                     // SIGKILL, by its process id
//		d.start(1)
//	})
//
// The issuer is the address of a proxy in front of the servers, so that any
// client can be pointed at it; the browsers and apps of a test go past it to
// the servers, one chosen for each request unless Via takes it to one, and so see the
// connection break when one dies. Files:
//
//	main_test.go        what is built, the flags
//	deployment_test.go  a database and the servers over it
//	browser_test.go     people at browsers, of conformance/internal/people
//	app_test.go         apps that are registered
//	database_test.go    PostgreSQL restarts and fails over
//	failpoint_test.go   where a server may die; crash_test.go: under load, judged
//	                    by what the clients of conformance/internal/siege noted
//	revocation_test.go  how soon, and for how long, resource servers know
//	rotation_test.go    keys that live for seconds; jose_test.go: as Node sees them
//	race_test.go        many at once
//	clock_test.go       a clock that is wrong; disk_test.go: a disk that is full
//	network_test.go     bad networks, made by wire_test.go
//	slow_test.go        many slow or silent connections, and a silent key server
//	linear_test.go      long histories of what rivals did, for the judge
//	broken_test.go      what it says of servers whose store is broken
//	traces_test.go      what a collector gets; figures_test.go: what Prometheus does
//	upgrade_test.go     earlier programs, built from the history, beside this one
//
// The binary is built once; deployments made with faulty get one built with the
// tag faults, which dies where SIGNET_FAILPOINT says (cmd/signet/faults.go).
// Each claim has a short form, for every run of the tests, and a long one:
//
//	go test ./conformance/proof -long          (or SIGNET_LONG=1)
//	go test ./conformance/proof -raced         servers under the race detector
package proof
