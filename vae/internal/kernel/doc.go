// Package kernel holds the numeric loops of the variational autoencoder: dense
// layers, activations, likelihood heads, KL, and their gradients.
//
// Everything works on tiles: Rows rows of every column, feature-major, so that
// element (f, r) of a tile stands at f*Rows+r and one feature of neighbouring
// rows is contiguous, which is what a vector register wants and what an Arrow
// column already is. Lanes beyond the rows in use hold zeros.
//
// Three things are built on them. A Plan scores: parameters packed for one Level,
// a whole network for one Tile at a time, or a few rows with the neurons in the
// lanes. A Trainer computes gradients straight from the flat parameters. The
// optimizers' steps are flat loops. Underneath, gemm*.go has the products and
// vec*.go all else, both in assembly written by the programs under gen.
//
// The plain Go loops here are the specification that faster variants are held
// to. They are generic over the float type: scoring and training use float32,
// the gradient checks run the very same code in float64. Products are converted
// before they are added (F(w*x)), which forbids the compiler to fuse them, so
// that these loops give the same bits on every architecture. Each output is one
// chain over its inputs in ascending order, starting at the bias; a row's result
// therefore depends on nothing but the row. The assembly fuses: AVX2, AVX-512 and
// NEON have the same bits as each other, and plain Go's up to rounding.
//
// The mistake to avoid is a buffer of the wrong length: shapes are checked once,
// by NewScratch and Net, and not in the inner loops.
package kernel

// Rows is the number of rows in a tile.
const Rows = 64

// Float is the element type of a tile.
type Float interface{ float32 | float64 }
