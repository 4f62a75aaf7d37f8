package browser

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	mrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/signet-oidc/signet/storage/storagetest"
)

// freeAddresses returns loopback addresses that nobody listens on, for the
// programs have to know each other's before they start. They are below the
// ports that outgoing connections take.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for len(addresses) < n {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+mrand.IntN(20_000))))
		if err != nil {
			continue // taken
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

// The programs as the README runs them, over PostgreSQL: an invited person
// chooses a password, goes on to the shop and orders, until the operator
// disables them.
func TestInvited(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var kek [32]byte
	_, _ = rand.Read(kek[:])
	env := []string{"SIGNET_DATABASE=" + storagetest.EmptyPostgres(t), "SIGNET_KEK=" + base64.StdEncoding.EncodeToString(kek[:]), "SIGNET_DATA=" + dir}
	signet := func(into any, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(binaries, "signet"), append(args, "--json")...)
		cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, into)
		}
		if err != nil {
			t.Fatalf("signet %v: %v\n%s", args, err, out)
		}
	}
	addresses := freeAddresses(t, 3)
	_, port, _ := net.SplitHostPort(addresses[0])
	issuer, orders, shop := "http://localhost:"+port, "http://"+addresses[1], "http://"+addresses[2]
	var ready, ignored struct{}
	start(t, &ready, env, "signet", "serve", "--issuer", issuer, "--listen", addresses[0], "--admin-listen", "127.0.0.1:0", "--migrate", "--drain", "1s")
	signet(&ignored, "resource", "create", orders, "--name", "Orders", "--scope", "orders:read", "--scope", "orders:write")
	var client struct {
		Secret string `json:"client_secret"`
	}
	signet(&client, "client", "create", "--id", "storefront", "--name", "Harbour Street Goods", "--grant", "authorization_code", "--grant", "refresh_token",
		"--redirect-uri", shop+"/callback", "--post-logout-redirect-uri", shop+"/signed-out", "--scope", "openid", "--scope", "profile",
		"--scope", "email", "--scope", "offline_access", "--scope", "orders:read", "--scope", "orders:write")
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(client.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, &ready, env, "orders", "--issuer", issuer, "--audience", orders, "--listen", addresses[1], "--data", dir)
	start(t, &ready, env, "storefront", "--issuer", issuer, "--client-id", "storefront", "--client-secret-file", secret,
		"--orders", orders, "--url", shop, "--listen", addresses[2])
	signet(&ignored, "user", "create", "grace", "--email", "grace@example.com", "--generate-password")
	var invitation struct {
		SetupURL string `json:"setup_url"`
	}
	signet(&invitation, "user", "invite", "grace")

	const chosen = "four herons under one bridge"
	b := newTab(t)
	b.open(invitation.SetupURL).sees("set-up").types("new-password", "short").types("repeat-password", "short").click("submit")
	b.sees("error-summary").types("new-password", chosen).types("repeat-password", chosen).click("submit")
	b.sees("notice").reads("username", "grace")
	b.open(shop).click("sign-in").sees("consent").reads("user", "grace").click("allow")
	b.sees("sign-out").reads("nav-profile", "grace").click("order-teapot").sees("placed").reads("orders", "Teapot")
	b.open(invitation.SetupURL).sees("request-id") // the link works once

	signet(&ignored, "user", "disable", "grace")
	b.open(shop+"/profile").sees("refused").reads("refused", "The shop may no longer act for you")
	b.click("again").sees("login").types("username", "grace").types("password", chosen).click("submit")
	b.sees("error-summary")
}
