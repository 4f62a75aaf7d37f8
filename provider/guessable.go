package provider

import (
	_ "embed"
	"slices"
	"strings"
	"unicode/utf8"
)

//go:embed common_passwords.txt
var commonPasswords string

// minPieces is of how many pieces a password has to consist, where a piece is
// whatever a guesser tries at once.
const minPieces = 6

// guessable reports whether a password, long as it may be, is made of a few
// things that everybody tries: common passwords and names, runs on the keyboard
// or in the alphabet, years, one character or one block again and again. A
// list of long common passwords would hold little else (NIST SP 800-63B-4
// §3.1.1.2).
func guessable(password string) bool {
	s := strings.ToLower(password)
	for size := 1; size <= len(s)/2; size++ { // one block again and again
		if len(s)%size == 0 && strings.Repeat(s[:size], len(s)/size) == s {
			s = s[:size]
			break
		}
	}
	if utf8.RuneCountInString(s) > 64 {
		return false
	}
	common := strings.Fields(commonPasswords)
	// pieces[i] is the least number of pieces that make up the first i bytes.
	pieces := make([]int, len(s)+1)
	for end := 1; end <= len(s); end++ {
		pieces[end] = pieces[end-1] + 1
		for start := range end {
			if pieces[start]+1 < pieces[end] && onePiece(s[start:end], common) {
				pieces[end] = pieces[start] + 1
			}
		}
	}
	return pieces[len(s)] < minPieces
}

// onePiece says whether s is something that a guesser tries at once.
func onePiece(s string, common []string) bool {
	if len(s) < 3 {
		return false
	}
	return slices.Contains(common, s) || isRun(s) || len(s) == 4 && (strings.HasPrefix(s, "19") || strings.HasPrefix(s, "20"))
}

// rows are what runs along a keyboard or the alphabet look like.
const rows = "abcdefghijklmnopqrstuvwxyz 01234567890 qwertyuiop asdfghjkl zxcvbnm qwertzuiop yxcvbnm azertyuiop qsdfghjklm"

func isRun(s string) bool {
	reversed := []byte(s)
	slices.Reverse(reversed)
	return strings.Contains(rows, s) || strings.Contains(rows, string(reversed)) || strings.Count(s, s[:1]) == len(s)
}
