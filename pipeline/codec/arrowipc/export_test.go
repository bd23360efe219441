package arrowipc

// UnpackLZ4 and Messages open what streams hardly reach to tests.
var UnpackLZ4 = unpackLZ4

// Messages splits a stream into its messages.
func Messages(b []byte) (all [][]byte) {
	for {
		_, size, err := next(b)
		if err != nil {
			return all
		}
		all = append(all, b[:size])
		b = b[size:]
	}
}
