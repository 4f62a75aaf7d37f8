package provider

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/signet-oidc/signet/provider/keys"
)

// `signet doctor` asks the issuer's servers, by the issuer's URL, how its
// request reached them. They tell nobody else: the question comes with a pass
// that only the database's keys make, and it is good for a minute.
const (
	prefixDoctor = "sgd_"
	doctorTime   = time.Minute
)

// DoctorPass returns the pass, good from now on, a time of the shared clock.
func DoctorPass(ring *keys.Ring, issuer Issuer, now time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(now.Add(doctorTime).Unix()))
	keyID, mac := ring.MAC(keys.PurposeGrant, doctorClaim(issuer, b))
	return prefixDoctor + base64.RawURLEncoding.EncodeToString(append(append(b, mac[:]...), keyID...))
}

// doctorClaim is what the pass's MAC is over. It begins as no code or refresh
// token does, which are under the same key.
func doctorClaim(issuer Issuer, expires []byte) []byte {
	return append([]byte(prefixDoctor+issuer.String()+"\x00"), expires...)
}

// IsDoctor says whether the request has a pass that is good now.
func (p *Provider) IsDoctor(ctx context.Context, authorization string) bool {
	const covered, size = 8, 40
	encoded, ok := strings.CutPrefix(authorization, "Bearer "+prefixDoctor)
	if !ok || len(encoded) > 256 {
		return false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) <= size {
		return false
	}
	v, err := p.registry.view(ctx)
	if err != nil {
		return false
	}
	left := time.Unix(int64(binary.BigEndian.Uint64(raw[:covered])), 0).Sub(p.sharedNow())
	return left > -p.policy.MaxClockOffset && left <= doctorTime+p.policy.MaxClockOffset &&
		v.ring.VerifyMAC(keys.PurposeGrant, string(raw[size:]), doctorClaim(p.issuer, raw[:covered]), raw[covered:size])
}
