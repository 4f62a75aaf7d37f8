package clients

import (
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signet-oidc/signet/conformance/internal/issuer"
	"github.com/signet-oidc/signet/conformance/internal/people"
)

// Spring Security as an app that signs people in, and as the API that takes
// their access tokens.
func TestSpringSecurity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mvn", "-B", "-q", "-f", "spring/pom.xml", "-Dmade="+dir, "package").CombinedOutput(); err != nil {
		t.Fatalf("mvn: %v; it needs Maven and a JDK 17\n%s", err, out)
	}
	i := issuer.Start(t, program, "")
	trust := filepath.Join(dir, "trust")
	if out, err := exec.Command("keytool", "-importcert", "-noprompt", "-file", i.CAFile, "-keystore", trust, "-storepass", "changeit").CombinedOutput(); err != nil {
		t.Fatalf("keytool: %v\n%s", err, out)
	}
	const api = "https://orders.example"
	i.Signet(nil, "resource", "create", api, "--name", "Orders", "--scope", "orders:read")
	address := issuer.FreeAddress(t)
	origin := "http://" + address
	secret := i.Client("shop", origin+"/login/oauth2/code/signet", "--scope", "orders:read", "--post-logout-redirect-uri", origin+"/signed-out",
		"--backchannel-logout-uri", origin+"/logout/connect/back-channel/signet", "--refresh-window", "0")
	host, port, _ := strings.Cut(address, ":")
	const registration = "SPRING_SECURITY_OAUTH2_CLIENT_REGISTRATION_SIGNET_"
	serve(t, exec.Command("java", "-XX:TieredStopAtLevel=1", "-Djavax.net.ssl.trustStore="+trust, "-Djavax.net.ssl.trustStorePassword=changeit",
		"-jar", filepath.Join(dir, "site.jar")),
		"SERVER_ADDRESS="+host, "SERVER_PORT="+port, "ISSUER="+i.URL, "AUDIENCE="+api,
		"SPRING_SECURITY_OAUTH2_CLIENT_PROVIDER_SIGNET_ISSUERURI="+i.URL,
		registration+"CLIENTID=shop", registration+"CLIENTSECRET="+secret, registration+"SCOPE=openid,profile,email,offline_access,orders:read")
	ada := i.Person("ada")
	site{
		origin: origin, page: "/", logout: "/logout", signedOut: "/signed-out",
		about:     toldAsJSON,
		refreshed: refreshedAt(origin + "/refresh"),
		reason:    func(p people.Page) string { return p.Body },
		refuses: map[issuer.Lie]string{
			issuer.AnotherIssuer:  `invalid claims: {iss=`,
			issuer.AnotherNonce:   `invalid_nonce`,
			issuer.AnotherApp:     `invalid claims: {aud=`,
			issuer.AnotherKey:     `Invalid signature`,
			issuer.Expired:        `Jwt expired`,
			issuer.Unsigned:       `Unsupported algorithm of none`,
			issuer.AnotherSubject: `invalid_user_info_response`,
		},
		// It does not know RFC 9207.
		believes: []issuer.Lie{issuer.MixUp},
	}.judge(t, i, ada)

	b := i.Browser(ada, origin)
	var held struct {
		Access string `json:"access_token"`
		ID     string `json:"id_token"`
	}
	if err := b.Consent(origin + "/tokens"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b.Body), &held); err != nil {
		t.Fatalf("%v: %s", err, b.Page)
	}
	signature := strings.LastIndexByte(held.Access, '.') + 1
	for name, test := range map[string]struct {
		token string
		want  int
	}{
		"an access token":               {held.Access, http.StatusOK},
		"an ID token":                   {held.ID, http.StatusUnauthorized},
		"another's signature":           {held.Access[:signature] + held.ID[strings.LastIndexByte(held.ID, '.')+1:], http.StatusUnauthorized},
		"an access token for elsewhere": {elsewhere(t, i), http.StatusUnauthorized},
	} {
		req, err := http.NewRequest(http.MethodGet, origin+"/api", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+test.token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != test.want {
			t.Errorf("%s: %s %s %s", name, res.Status, body, res.Header.Get("WWW-Authenticate"))
		}
	}
}

// elsewhere gets an access token for another API.
func elsewhere(t *testing.T, i *issuer.Issuer) string {
	t.Helper()
	i.Signet(nil, "resource", "create", "https://stock.example", "--name", "Stock", "--scope", "stock:read")
	var made struct {
		ClientSecret string `json:"client_secret"`
	}
	i.Signet(&made, "client", "create", "--id", "robot", "--name", "Robot", "--grant", "client_credentials", "--scope", "stock:read")
	req, err := http.NewRequest(http.MethodPost, i.URL+"/token", strings.NewReader("grant_type=client_credentials&scope=stock:read"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("robot", made.ClientSecret)
	res, err := i.Via.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var told struct {
		Access string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&told); err != nil || told.Access == "" {
		t.Fatalf("%s: %v", res.Status, err)
	}
	return told.Access
}
