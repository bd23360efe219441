package json

// Exact returns a format like f whose decoders take no short cut.
func Exact(f *Format) *Format {
	e := *f
	e.exact = true
	return &e
}
