package provider

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/signet-oidc/signet/provider/keys"
	"github.com/signet-oidc/signet/storage"
)

// Subject identifier types (OIDC Core §8). A client with pairwise ones knows
// people, and their sessions, by names that only clients of its sector share:
// MACs, made anew whenever they are needed and kept in the grant's row, where
// those look who have not the key. Public names are the UUIDs themselves.
const (
	subjectPublic   = "public"
	subjectPairwise = "pairwise"
)

// SubjectTypes lists what a client can be registered with.
func SubjectTypes() []string { return []string{subjectPublic, subjectPairwise} }

// pairwisePrefix begins every pairwise name: no client identifier does (RFC
// 9068 §5), and on a command line it is not taken for a flag.
const pairwisePrefix = "_"

// Sizes of the MACs in pairwise names, in bytes.
const (
	pairwiseSubSize = 32
	pairwiseSIDSize = 16 // a session lives for days
)

// subjectFor returns the sub by which the client knows the person.
func (s *snapshot) subjectFor(c *client, userID string) string {
	if c.SubjectType != subjectPairwise {
		return userID
	}
	return s.pairwise(c, "sub", userID, pairwiseSubSize)
}

// pairwiseNames returns what a grant to the client keeps of how it calls the
// person and the session: nothing unless its subjects are pairwise.
func (s *snapshot) pairwiseNames(c *client, userID, sessionID string) (subject, sid string) {
	if c.SubjectType != subjectPairwise {
		return "", ""
	}
	return s.subjectFor(c, userID), s.pairwise(c, "sid", sessionID, pairwiseSIDSize)
}

// pairwise is the keyed hash of OIDC Core §8.1: of the sector and a name here.
func (s *snapshot) pairwise(c *client, kind, name string, size int) string {
	_, mac := s.ring.MAC(keys.PurposePairwise, []byte(kind+"\x00"+c.SectorIdentifier+"\x00"+name))
	return pairwisePrefix + base64.RawURLEncoding.EncodeToString(mac[:size])
}

// isPairwise says whether s is written as pairwise names of this size are.
func isPairwise(s string, size int) bool {
	encoded, ok := strings.CutPrefix(s, pairwisePrefix)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	return ok && err == nil && len(raw) == size && !strings.ContainsAny(s, "\r\n")
}

// subjectOf returns the sub in what the grant gives.
func subjectOf(g storage.Grant) string { return cmp.Or(g.Subject, g.UserID) }

// sidOf returns the sid in what the grant gives.
func sidOf(g storage.Grant) string { return cmp.Or(g.SID, g.SessionID) }

// maxPairwiseSubjects bounds by how many subs one person is known, so that
// what refuses all of them fits into one transaction.
const maxPairwiseSubjects = 500

// errTooManySubjects says that a person is known by as many pairwise subs as
// anybody may be.
var errTooManySubjects = errors.New("the person is known by too many pairwise subs")

// lockSubject makes the grant of a client with pairwise subjects known to
// whoever revokes the person's tokens, which is the other one to hold this
// lock: either sees the grant, or it is given, and its tokens are made, from
// what is true after that. It comes before the lock of the session, as there.
func lockSubject(ctx context.Context, tx storage.Tx, g storage.Grant) error {
	if g.Subject == "" {
		return nil
	}
	err := tx.LockUser(ctx, g.UserID)
	if errors.Is(err, storage.ErrNotFound) {
		return ErrNoSession
	}
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	subs, err := tx.PairwiseSubjects(ctx, g.UserID)
	if err != nil {
		return fmt.Errorf("subjects: %w", err)
	}
	if len(subs) >= maxPairwiseSubjects && !slices.Contains(subs, g.Subject) {
		return errTooManySubjects
	}
	return nil
}

// sectorIdentifier returns the host that stands for the client's sector (OIDC
// Core §8.1), or "" where its subjects are public, or nothing says which.
func sectorIdentifier(c storage.Client) string {
	if c.SubjectType != subjectPairwise {
		return ""
	}
	if uri := ReadClientExtra(c).SectorIdentifierURI; uri != "" {
		return hostOf(uri)
	}
	if hosts := redirectHosts(c); len(hosts) == 1 {
		return hosts[0]
	}
	return ""
}

// redirectHosts returns the hosts of the redirect URIs: "" among them for those
// on people's devices, which no host stands for, loopback included.
func redirectHosts(c storage.Client) []string {
	var hosts []string
	for _, uri := range c.RedirectURIs {
		if needsNative(uri) {
			hosts = append(hosts, "")
		} else {
			hosts = append(hosts, hostOf(uri))
		}
	}
	return distinct(hosts)
}

func hostOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// checkSubjects adds what is wrong with how the client is to call people.
func checkSubjects(f *InvalidError, c storage.Client) {
	uri := ReadClientExtra(c).SectorIdentifierURI
	if uri != "" { // OIDC Registration §5
		f.check("sector_identifier_uri", uri, checkHTTPS(uri))
	}
	switch code := slices.Contains(c.GrantTypes, grantCode); {
	case !slices.Contains(SubjectTypes(), c.SubjectType):
		f.Add("subject_type", fmt.Sprintf("%q is not offered", clip(c.SubjectType)), "choose "+strings.Join(SubjectTypes(), " or "))
	case !code && (c.SubjectType == subjectPairwise || uri != ""):
		f.Add("subject_type", "is about people who sign in, which "+grantCode+" is for", "add that grant, or leave subject_type and sector_identifier_uri out")
	case c.SubjectType == subjectPublic || uri != "" || len(c.RedirectURIs) == 0 || c.SectorIdentifier != "":
	case slices.Equal(redirectHosts(c), []string{""}):
		f.Add("sector_identifier_uri", "is missing: redirect URIs on people's devices have no host that the pairwise subjects could be for", sectorCure)
	default:
		f.Add("sector_identifier_uri", "is missing: the redirect URIs are not on one host, which the pairwise subjects would be for", sectorCure)
	}
}

const sectorCure = "publish a JSON array of the redirect URIs at an https URL of yours, and give that"

// sectorDocument is what was found at a sector_identifier_uri.
type sectorDocument struct {
	uri          string
	redirectURIs []string
}

// sectorUnread says whether what is at the client's sector_identifier_uri has
// to be read, because it was not for these redirect URIs (OIDC Registration §5:
// at registration). It may go afterwards.
func sectorUnread(before, c storage.Client) bool {
	uri := ReadClientExtra(c).SectorIdentifierURI
	return uri != "" && (uri != ReadClientExtra(before).SectorIdentifierURI ||
		slices.ContainsFunc(c.RedirectURIs, func(u string) bool { return !slices.Contains(before.RedirectURIs, u) }))
}

// readSector fetches what is at the client's sector_identifier_uri.
func (a *Admin) readSector(ctx context.Context, c storage.Client) (sectorDocument, error) {
	d := sectorDocument{uri: ReadClientExtra(c).SectorIdentifierURI}
	fault := func(problem string) error {
		var f InvalidError
		f.Add(fmt.Sprintf("sector_identifier_uri %q", d.uri), problem,
			"it has to answer with 200, without a redirect, and a JSON array of the redirect URIs (OIDC Registration §5)")
		return f.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, outboundTimeout)
	defer cancel()
	body, err := a.fetch(ctx, d.uri)
	if err != nil {
		return d, fault("cannot be read: " + err.Error())
	}
	if err := json.Unmarshal(body, &d.redirectURIs); err != nil || d.redirectURIs == nil {
		return d, fault("is no JSON array of URIs")
	}
	return d, nil
}

// check returns an *InvalidError unless the document has every redirect URI of
// the client, to the byte (OIDC Registration §5).
func (d sectorDocument) check(c storage.Client) error {
	var f InvalidError
	for _, uri := range c.RedirectURIs {
		if !slices.Contains(d.redirectURIs, uri) {
			f.Add(fmt.Sprintf("sector_identifier_uri %q", d.uri), fmt.Sprintf("does not list the redirect URI %q", uri), "add it there")
		}
	}
	return f.Err()
}

// ChangesSubjects says whether clients and people lose sight of each other by a
// change: everybody gets another sub, and what was given under the old one ends.
func ChangesSubjects(before, after storage.Client) bool {
	tidyClient(&after)
	return slices.Contains(before.GrantTypes, grantCode) &&
		(before.SubjectType != after.SubjectType || before.SectorIdentifier != after.SectorIdentifier)
}
