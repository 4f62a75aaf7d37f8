package revocation

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"io"
	"slices"
	"testing"
)

// inflate returns the bits that are set in a list (draft-ietf-oauth-status-list-21 §4.1).
func inflate(t *testing.T, lst string) (set []uint32, size int) {
	t.Helper()
	compressed, err := base64.RawURLEncoding.DecodeString(lst)
	if err != nil {
		t.Fatal(err)
	}
	r, err := zlib.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range raw {
		for bit := range 8 {
			if b>>bit&1 == 1 {
				set = append(set, uint32(8*i+bit))
			}
		}
	}
	return set, 8 * len(raw)
}

// The draft's own vectors: §4.1 and appendix C.1, a list of 2^20 entries. Its
// compression is another one, so what is compared is what comes out of it.
func TestStatusListVectors(t *testing.T) {
	short, _ := inflate(t, "eNrbuRgAAhcBXQ")
	if want := []uint32{0, 3, 4, 5, 7, 8, 9, 13, 15}; !slices.Equal(short, want) {
		t.Errorf("the short vector has %v, want %v: bits are read in another order", short, want)
	}
	vector, err := hex.DecodeString("78daeddc010dc0200c0041a88249400ad2903e0f4b" +
		"ba00bd93f002beb7a2a2010000a91e09000000000000000000000000000000807296" +
		"04000000000000000000000000000000000000000000000000000000000000000000" +
		"000000000000005c6f4800000000000000fc2c240000000000000000000000be1b12" +
		"000000000000000000ecaa4b000000000000000000000000000000009b0b09000000" +
		"00000000000038de9400000000000000002a30cc010000000080642f0bd8011b")
	if err != nil {
		t.Fatal(err)
	}
	invalid := []uint32{0, 1993, 25460, 159495, 495669, 554353, 645645, 723232, 854545, 934534, 1000345}
	theirs, theirSize := inflate(t, encode(vector))
	ours, ourSize := inflate(t, encodeStatusList(invalid))
	if !slices.Equal(theirs, invalid) || theirSize != StatusListSize {
		t.Errorf("the vector has %v of %d", theirs, theirSize)
	}
	if !slices.Equal(ours, theirs) || ourSize != theirSize {
		t.Errorf("ours has %v of %d, the vector %v of %d", ours, ourSize, theirs, theirSize)
	}
}

// A verifier can tell from the list alone how large it may be: 2^20 bits,
// whatever is in it.
func TestStatusListSize(t *testing.T) {
	for _, invalid := range [][]uint32{nil, {0}, {StatusListSize - 1}} {
		got, size := inflate(t, encodeStatusList(invalid))
		if size != StatusListSize || !slices.Equal(got, invalid) {
			t.Errorf("%v: %v of %d", invalid, got, size)
		}
	}
	if n := len(encodeStatusList(nil)); n > 1500 {
		t.Errorf("an empty list takes %d bytes", n)
	}
}
