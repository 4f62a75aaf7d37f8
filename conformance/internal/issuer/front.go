package issuer

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
)

// A Lie is something that no client may believe. The rest of what the issuer
// then says is right.
type Lie string

// What an issuer may lie about.
const (
	Honest         Lie = ""
	AnotherIssuer  Lie = "another issuer in the ID token"
	AnotherNonce   Lie = "another nonce in the ID token"
	AnotherApp     Lie = "another audience of the ID token"
	AnotherKey     Lie = "another key behind the ID token's kid"
	Expired        Lie = "an ID token that has expired"
	Unsigned       Lie = "an ID token without signature"
	AnotherSubject Lie = "another subject at userinfo"
	MixUp          Lie = "another issuer beside the code" // RFC 9207
	AnotherName    Lie = "another issuer in the metadata"
)

// Lies returns all of them.
func Lies() []Lie {
	return []Lie{AnotherIssuer, AnotherNonce, AnotherApp, AnotherKey, Expired, Unsigned, AnotherSubject, MixUp, AnotherName}
}

// another issuer than the one that is asked.
const another = "https://attacker.example"

// front speaks TLS for the program, and lies when it is told to.
type front struct {
	upstream string // its host and port
	lie      atomic.Pointer[Lie]
	key      *rsa.PrivateKey // of the front's own
}

func newFront() (*front, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	return &front{key: key}, err
}

func (f *front) handler() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: f.upstream})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport:      &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true},
		ModifyResponse: f.alter,
		FlushInterval:  -1,
	}
}

// alter changes an answer where the lie has to be told.
func (f *front) alter(res *http.Response) error {
	lie := Honest
	if told := f.lie.Load(); told != nil {
		lie = *told
	}
	if lie == Honest {
		return nil
	}
	path := res.Request.URL.Path
	switch {
	case lie == MixUp && res.Header.Get("Location") != "":
		to, err := url.Parse(res.Header.Get("Location"))
		if err != nil {
			return err
		}
		if q := to.Query(); q.Has("iss") {
			q.Set("iss", another)
			to.RawQuery = q.Encode()
			res.Header.Set("Location", to.String())
		}
		return nil
	case strings.HasPrefix(path, "/.well-known/") && lie == AnotherName:
		return changeObject(res, func(m map[string]any) error { m["issuer"] = another; return nil })
	case path == "/jwks":
		return changeObject(res, func(m map[string]any) error {
			keys, _ := m["keys"].([]any)
			m["keys"] = append(keys, jose.JSONWebKey{Key: f.key.Public(), KeyID: ownKey, Algorithm: "RS256", Use: "sig"})
			return nil
		})
	case path == "/userinfo" && lie == AnotherSubject:
		return changeObject(res, func(m map[string]any) error { m["sub"] = "somebody-else"; return nil })
	case path == "/token":
		return changeObject(res, func(m map[string]any) error {
			token, _ := m["id_token"].(string)
			if token == "" {
				return nil
			}
			forged, err := f.forge(token, lie)
			m["id_token"] = forged
			return err
		})
	}
	return nil
}

// ownKey names the front's own key in the JWKS.
const ownKey = "front"

// forge makes an ID token anew. Its signature is right where that is not the lie.
func (f *front) forge(token string, lie Lie) (string, error) {
	parts := strings.Split(token, ".")
	var header struct{ Kid string }
	claims := make(map[string]any)
	for i, into := range []any{&header, &claims} {
		part, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return "", err
		}
		d := json.NewDecoder(bytes.NewReader(part))
		d.UseNumber()
		if err := d.Decode(into); err != nil {
			return "", err
		}
	}
	kid := ownKey
	switch lie {
	case AnotherIssuer:
		claims["iss"] = another
	case AnotherNonce:
		claims["nonce"] = "of-somebody-else"
	case AnotherApp:
		claims["aud"] = "another-app"
	case Expired:
		// Longer ago than the tolerance of any client.
		claims["iat"], claims["exp"], claims["auth_time"] = 1_700_000_000, 1_700_000_600, 1_700_000_000
	case AnotherKey:
		kid = header.Kid
	case Unsigned:
		payload, err := json.Marshal(claims)
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(`{"alg":"none"}`)) + "." + encode(payload) + ".", err
	default:
		return token, nil
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: f.key, KeyID: kid}}, nil)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// changeObject changes the JSON object that an answer holds.
func changeObject(res *http.Response, change func(map[string]any) error) error {
	if res.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	_ = res.Body.Close() // it was read whole
	m := make(map[string]any)
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("%s: %w", res.Request.URL.Path, err)
	}
	if err := change(m); err != nil {
		return err
	}
	if body, err = json.Marshal(m); err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	res.ContentLength = int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	res.Header.Del("ETag")
	return nil
}

// Tell makes the issuer lie, or be honest again. A client that has its keys
// already learns of the key behind the lie when it asks for them anew.
func (i *Issuer) Tell(lie Lie) error {
	if lie != Honest && !slices.Contains(Lies(), lie) {
		return fmt.Errorf("there is no lie %q", lie)
	}
	i.front.lie.Store(&lie)
	return nil
}
