package provider

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/google/uuid"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// secretPrefix lets secret scanners recognise a leaked client secret.
const secretPrefix = "sgs_"

// schemeHMAC is right only for secrets of 256 random bits that the server
// made: a keyed hash costs a microsecond and leaves nothing to guess.
const schemeHMAC = "hmac-sha256"

// newClientSecret makes a secret for the client. The plain text is shown once;
// what is stored is a keyed hash bound to the client's identifier.
func newClientSecret(ring *keys.Ring, clientID string, now, expires time.Time) (plain string, s storage.ClientSecret) {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails: it aborts the program instead
	plain = secretPrefix + base64.RawURLEncoding.EncodeToString(random)
	keyID, mac := ring.MAC(keys.PurposeClientSecret, secretMessage(clientID, plain))
	return plain, storage.ClientSecret{
		ID:        uuid.Must(uuid.NewV7()).String(),
		ClientID:  clientID,
		Scheme:    schemeHMAC,
		KeyID:     keyID,
		Hash:      mac[:],
		CreatedAt: now,
		ExpiresAt: expires,
	}
}

// verifyClientSecret reports whether presented is one of the client's live
// secrets. It takes as long for a client that has none.
func verifyClientSecret(ring *keys.Ring, c storage.Client, presented string, now time.Time) bool {
	message := secretMessage(c.ID, presented)
	ok := false
	tried := false
	for _, s := range c.Secrets {
		if s.Scheme != schemeHMAC || len(s.Hash) == 0 || (!s.ExpiresAt.IsZero() && !now.Before(s.ExpiresAt)) {
			continue
		}
		tried = true
		ok = ring.VerifyMAC(keys.PurposeClientSecret, s.KeyID, message, s.Hash) || ok
	}
	if !tried {
		ring.MAC(keys.PurposeClientSecret, message)
	}
	return ok
}

func secretMessage(clientID, plain string) []byte {
	b := make([]byte, 0, len(clientID)+1+len(plain))
	b = append(b, clientID...)
	b = append(b, 0)
	return append(b, plain...)
}

// newBearer returns a token of 256 random bits, and its hash, which alone is stored.
func newBearer(prefix string) (token string, hash []byte) {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails: it aborts the program instead
	token = prefix + base64.RawURLEncoding.EncodeToString(random)
	return token, bearerHash(token)
}

func bearerHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}
