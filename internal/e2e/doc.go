// Package e2e holds the tests that look at the whole repository: which package
// imports which, whether everything exported is documented, whether the commands
// of the README run as written. It has no code of its own.
//
// The mistake to avoid is to loosen a table here to make a test pass: each row is
// a decision of docs/architecture.md.
package e2e
