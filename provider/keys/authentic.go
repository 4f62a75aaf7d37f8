package keys

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/signet-oidc/signet/storage"
)

// ErrAltered says that a row of the key tables is not as this program wrote
// it: somebody else can write to the database. Such a row is not used.
var ErrAltered = errors.New("altered in the database")

// purposeRows is the secret that authenticates rows: without it whoever can
// write to the database could publish a key of their own, or let an old one
// sign longer. It is random, so rows of another database do not pass.
const purposeRows = "rows"

// rowMACs authenticates what sealing does not cover of a row: the public key
// and the times. A row put back as it once was passes; see docs/keys.md.
type rowMACs struct{ secret []byte }

// openRowMACs returns the authenticator whose secret is in this row.
func openRowMACs(ctx context.Context, row storage.SealedSecret, sealer *Sealer) (rowMACs, error) {
	secret, err := sealer.Open(ctx, sealedSecretIdentity(row), Sealed{row.Sealed, row.WrappedDEK, row.KEKID})
	if err != nil {
		return rowMACs{}, fmt.Errorf("sealed secret %s: %w", row.ID, err)
	}
	m := rowMACs{secret}
	return m, m.checkSecret(row)
}

func (m rowMACs) ofKey(k storage.SigningKey) []byte {
	return m.sum([]string{"signing_keys", k.KID, k.Alg, k.Purpose, k.PublicJWK},
		k.PublishAt, k.SignFrom, k.SignUntil, k.RemoveAt, k.CompromisedAt, k.CreatedAt)
}

func (m rowMACs) ofSecret(s storage.SealedSecret) []byte {
	return m.sum([]string{"sealed_secrets", s.ID, s.Purpose}, s.UseFrom, s.UseUntil, s.RemoveAt, s.CreatedAt)
}

func (m rowMACs) checkKey(k storage.SigningKey) error {
	if !hmac.Equal(k.MAC, m.ofKey(k)) {
		return fmt.Errorf("signing key %s: %w", k.KID, ErrAltered)
	}
	return nil
}

func (m rowMACs) checkSecret(s storage.SealedSecret) error {
	if !hmac.Equal(s.MAC, m.ofSecret(s)) {
		return fmt.Errorf("sealed secret %s: %w", s.ID, ErrAltered)
	}
	return nil
}

// sum covers each text with its length and each time as the database has it:
// Unix milliseconds, 0 for the zero time.
func (m rowMACs) sum(texts []string, times ...time.Time) []byte {
	var b []byte
	for _, text := range texts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	for _, t := range times {
		var ms int64
		if !t.IsZero() {
			ms = t.UnixMilli()
		}
		b = binary.BigEndian.AppendUint64(b, uint64(ms))
	}
	mac := hmacSHA256(m.secret, b)
	return mac[:]
}
