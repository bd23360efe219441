package parquetio

// WithoutChecksums makes w write pages that carry no checksum, so that damage
// gets past it.
func WithoutChecksums(w *Writer) { w.enc.noCRC = true }
