package sqlstore

import (
	"context"

	"github.com/signet-oidc/signet/storage"
)

const signingKeyColumns = `kid, alg, purpose, public_jwk, sealed_private, wrapped_dek, kek_id,
	publish_at, sign_from, sign_until, remove_at, compromised_at, created_at`

func scanSigningKey(row Row, k *storage.SigningKey) error {
	return row.Scan(&k.KID, &k.Alg, &k.Purpose, &k.PublicJWK, bytesOf{&k.SealedPrivate}, bytesOf{&k.WrappedDEK}, &k.KEKID,
		timeOf{&k.PublishAt}, timeOf{&k.SignFrom}, timeOf{&k.SignUntil}, timeOf{&k.RemoveAt}, timeOf{&k.CompromisedAt}, timeOf{&k.CreatedAt})
}

// SigningKeys implements storage.Reader.
func (r *Reader) SigningKeys(ctx context.Context) ([]storage.SigningKey, error) {
	keys, err := collect(ctx, r.db, scanSigningKey,
		`SELECT `+signingKeyColumns+` FROM signing_keys ORDER BY sign_from, kid`)
	return keys, wrap(err, "list signing keys")
}

// CreateSigningKey implements storage.Tx.
func (t *Tx) CreateSigningKey(ctx context.Context, k storage.SigningKey) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	_, err := t.db.Exec(ctx, `INSERT INTO signing_keys (`+signingKeyColumns+`) VALUES (`+placeholders(1, 13)+`)`,
		k.KID, k.Alg, k.Purpose, k.PublicJWK, k.SealedPrivate, k.WrappedDEK, k.KEKID,
		k.PublishAt, k.SignFrom, k.SignUntil, k.RemoveAt, k.CompromisedAt, k.CreatedAt)
	return wrap(err, "insert signing key")
}

const sealedSecretColumns = `id, purpose, sealed, wrapped_dek, kek_id, use_from, use_until, remove_at, created_at`

func scanSealedSecret(row Row, s *storage.SealedSecret) error {
	return row.Scan(&s.ID, &s.Purpose, bytesOf{&s.Sealed}, bytesOf{&s.WrappedDEK}, &s.KEKID,
		timeOf{&s.UseFrom}, timeOf{&s.UseUntil}, timeOf{&s.RemoveAt}, timeOf{&s.CreatedAt})
}

// SealedSecrets implements storage.Reader.
func (r *Reader) SealedSecrets(ctx context.Context, purpose string) ([]storage.SealedSecret, error) {
	secrets, err := collect(ctx, r.db, scanSealedSecret,
		`SELECT `+sealedSecretColumns+` FROM sealed_secrets WHERE purpose = $1 ORDER BY use_from, id`, purpose)
	return secrets, wrap(err, "list sealed secrets")
}

// CreateSealedSecret implements storage.Tx.
func (t *Tx) CreateSealedSecret(ctx context.Context, s storage.SealedSecret) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	_, err := t.db.Exec(ctx, `INSERT INTO sealed_secrets (`+sealedSecretColumns+`) VALUES (`+placeholders(1, 9)+`)`,
		s.ID, s.Purpose, s.Sealed, s.WrappedDEK, s.KEKID, s.UseFrom, s.UseUntil, s.RemoveAt, s.CreatedAt)
	return wrap(err, "insert sealed secret")
}
