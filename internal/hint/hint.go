// Package hint suggests the name that was meant.
//
//	fmt.Errorf("column %q is missing%s", name, hint.DidYouMean(name, names))
//
// A suggestion is for people only: never act on it.
package hint

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// DidYouMean returns ` (did you mean "x"?)` for the candidate nearest to word,
// or "" when none is near.
func DidYouMean(word string, candidates []string) string {
	if near := Nearest(word, candidates); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}

// Nearest returns the candidate nearest to word, "" when none is near. Letter
// case, hyphens and underscores do not count.
func Nearest(word string, candidates []string) string {
	plain := strings.NewReplacer("_", "", "-", "", " ", "")
	fold := func(s string) string { return plain.Replace(strings.ToLower(s)) }
	from := fold(word)
	if from == "" || len(word) > 64 {
		return ""
	}
	best, least := "", 1+max(1, (utf8.RuneCountInString(from)+2)/3)
	for _, c := range candidates {
		if d := distance(from, fold(c)); d < least && d < len(fold(c)) {
			best, least = c, d
		}
	}
	return best
}

// distance is the optimal string alignment distance: insertions, deletions,
// substitutions and swaps of neighbours.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	before, last, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(s); i++ {
		row[0] = i
		for j := 1; j <= len(t); j++ {
			change := 1
			if s[i-1] == t[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(t)]
}
