//go:build !noasm

package kernel

// Every arm64 has NEON.
func nativeLevels() []Level { return []Level{NEON} }
