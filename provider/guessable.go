package provider

import (
	_ "embed"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// commonPasswords are the 30,000 passwords that leaks had most often, one a
// line, in byte order. NOTICE says whose list it is.
//
//go:embed common_passwords.txt
var commonPasswords string

// firstGuesses are the words that people make passwords of most.
//
//go:embed first_guesses.txt
var firstGuesses string

// What it costs, in bits, to guess a part of a password when one knows how it
// is put together: one of some hundred words and patterns that are tried first,
// one of the common passwords, or one byte of anything else.
const (
	costFirst  = 10
	costCommon = 15
	costByte   = 5
)

// minCost is what a password has to cost: more than 10¹⁵ guesses, when people
// are held to some hundred a day.
const minCost = 50

// guessable reports whether a password, long as it may be, is on the list of
// common passwords (NIST SP 800-63B-4 §3.1.1.2) or made of a few things that
// everybody tries: common passwords, runs on the keyboard or in the alphabet,
// years, one block again and again, and words, which stand for what an attacker
// knows of the account.
func guessable(password string, words []string) bool {
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
	first := append(strings.Fields(firstGuesses), words...)
	// cost[i] is the least that the first i bytes cost.
	cost := make([]int, len(s)+1)
	for end := 1; end <= len(s); end++ {
		cost[end] = cost[end-1] + costByte
		for start := range end - 2 {
			part := s[start:end]
			if cost[start]+costFirst < cost[end] && isFirstGuess(part, first) {
				cost[end] = cost[start] + costFirst
			} else if cost[start]+costCommon < cost[end] && listed(commonPasswords, part) {
				cost[end] = cost[start] + costCommon
			}
		}
	}
	return cost[len(s)] < minCost
}

// isFirstGuess says whether part, of three bytes or more, is among what a
// guesser tries first.
func isFirstGuess(part string, words []string) bool {
	return slices.Contains(words, part) || isRun(part) || len(part) == 4 && (strings.HasPrefix(part, "19") || strings.HasPrefix(part, "20"))
}

// keyRows are what runs along a keyboard or the alphabet look like.
const keyRows = "abcdefghijklmnopqrstuvwxyz 01234567890 qwertyuiop asdfghjkl zxcvbnm qwertzuiop yxcvbnm azertyuiop qsdfghjklm"

func isRun(s string) bool {
	reversed := []byte(s)
	slices.Reverse(reversed)
	return strings.Contains(keyRows, s) || strings.Contains(keyRows, string(reversed)) || strings.Count(s, s[:1]) == len(s)
}

// listed says whether s is a line of a list in byte order. It searches the
// text as it is: nothing is built at start, and nothing kept.
func listed(list, s string) bool {
	for low, high := 0, len(list); low < high; {
		middle := (low + high) / 2
		begin := strings.LastIndexByte(list[:middle], '\n') + 1
		end := begin + strings.IndexByte(list[begin:], '\n')
		switch order := strings.Compare(list[begin:end], s); {
		case order == 0:
			return true
		case order < 0:
			low = end + 1
		default:
			high = begin
		}
	}
	return false
}

// wordsOf returns the words in texts, in lower case.
func wordsOf(texts ...string) []string {
	var words []string
	for _, text := range texts {
		words = append(words, strings.FieldsFunc(strings.ToLower(normalPassword(text)), func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r)
		})...)
	}
	return words
}
