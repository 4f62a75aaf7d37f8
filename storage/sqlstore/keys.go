package sqlstore

import (
	"context"

	"github.com/signet-oidc/signet/storage"
)

const signingKeyColumns = `kid, alg, purpose, public_jwk, sealed_private, wrapped_dek, kek_id,
	publish_at, sign_from, sign_until, remove_at, compromised_at, created_at, mac`

func scanSigningKey(row Row, k *storage.SigningKey) error {
	return row.Scan(&k.KID, &k.Alg, &k.Purpose, &k.PublicJWK, bytesOf{&k.SealedPrivate}, bytesOf{&k.WrappedDEK}, &k.KEKID,
		timeOf{&k.PublishAt}, timeOf{&k.SignFrom}, timeOf{&k.SignUntil}, timeOf{&k.RemoveAt}, timeOf{&k.CompromisedAt}, timeOf{&k.CreatedAt}, bytesOf{&k.MAC})
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
	_, err := t.db.Exec(ctx, `INSERT INTO signing_keys (`+signingKeyColumns+`) VALUES (`+placeholders(1, 14)+`)`,
		k.KID, k.Alg, k.Purpose, k.PublicJWK, k.SealedPrivate, k.WrappedDEK, k.KEKID,
		k.PublishAt, k.SignFrom, k.SignUntil, k.RemoveAt, k.CompromisedAt, k.CreatedAt, k.MAC)
	return wrap(err, "insert signing key")
}

// UpdateSigningKey implements storage.Tx.
func (t *Tx) UpdateSigningKey(ctx context.Context, k storage.SigningKey) error {
	return t.changeKey(ctx, "update signing key", `UPDATE signing_keys SET sealed_private = $1, wrapped_dek = $2, kek_id = $3,
		publish_at = $4, sign_from = $5, sign_until = $6, remove_at = $7, compromised_at = $8, mac = $9 WHERE kid = $10`,
		k.SealedPrivate, k.WrappedDEK, k.KEKID, k.PublishAt, k.SignFrom, k.SignUntil, k.RemoveAt, k.CompromisedAt, k.MAC, k.KID)
}

// DeleteSigningKey implements storage.Tx.
func (t *Tx) DeleteSigningKey(ctx context.Context, kid string) error {
	return t.changeKey(ctx, "delete signing key", `DELETE FROM signing_keys WHERE kid = $1`, kid)
}

// changeKey executes a statement that changes one row of the key tables.
func (t *Tx) changeKey(ctx context.Context, what, query string, args ...any) error {
	if err := t.LockRegistry(ctx); err != nil {
		return err
	}
	n, err := t.db.Exec(ctx, query, args...)
	return wrap(affected(n, err), what)
}

const sealedSecretColumns = `id, purpose, sealed, wrapped_dek, kek_id, use_from, use_until, remove_at, created_at, mac`

func scanSealedSecret(row Row, s *storage.SealedSecret) error {
	return row.Scan(&s.ID, &s.Purpose, bytesOf{&s.Sealed}, bytesOf{&s.WrappedDEK}, &s.KEKID,
		timeOf{&s.UseFrom}, timeOf{&s.UseUntil}, timeOf{&s.RemoveAt}, timeOf{&s.CreatedAt}, bytesOf{&s.MAC})
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
	_, err := t.db.Exec(ctx, `INSERT INTO sealed_secrets (`+sealedSecretColumns+`) VALUES (`+placeholders(1, 10)+`)`,
		s.ID, s.Purpose, s.Sealed, s.WrappedDEK, s.KEKID, s.UseFrom, s.UseUntil, s.RemoveAt, s.CreatedAt, s.MAC)
	return wrap(err, "insert sealed secret")
}

// UpdateSealedSecret implements storage.Tx.
func (t *Tx) UpdateSealedSecret(ctx context.Context, s storage.SealedSecret) error {
	return t.changeKey(ctx, "update sealed secret", `UPDATE sealed_secrets SET sealed = $1, wrapped_dek = $2, kek_id = $3,
		use_from = $4, use_until = $5, remove_at = $6, mac = $7 WHERE id = $8`,
		s.Sealed, s.WrappedDEK, s.KEKID, s.UseFrom, s.UseUntil, s.RemoveAt, s.MAC, s.ID)
}

// DeleteSealedSecret implements storage.Tx.
func (t *Tx) DeleteSealedSecret(ctx context.Context, id string) error {
	return t.changeKey(ctx, "delete sealed secret", `DELETE FROM sealed_secrets WHERE id = $1`, id)
}

// ClientSecretKeys implements storage.Reader.
func (r *Reader) ClientSecretKeys(ctx context.Context) ([]string, error) {
	ids, err := collect(ctx, r.db, scanText, `SELECT DISTINCT key_id FROM client_secrets ORDER BY key_id`)
	return ids, wrap(err, "list keys of client secrets")
}
