package train

import (
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// hideShare is how often a value of a column that has gaps is hidden in a step, so
// that the network meets more patterns of gaps than the table has.
const hideShare = 0.1

// gaps are the columns that have a missing indicator.
type gaps []gap

type gap struct{ feature, features, indicator int }

func gapsOf(s *vae.Spec) (list gaps) {
	at, features := 0, 0
	for i := range s.Columns {
		features += s.Columns[i].Features()
	}
	for i := range s.Columns {
		c := &s.Columns[i]
		if c.Indicator {
			list = append(list, gap{at, c.Features(), features})
			features++
		}
		at += c.Features()
	}
	return list
}

// hide makes some values of a tile's rows missing: which depends on the key, the
// row's place in the batch and the column alone.
func (g gaps) hide(t *kernel.Trainer, key uint64, from, rows int) {
	for i, c := range g {
		for r := range rows {
			if float64(stir(stir(key, uint64(from+r)), uint64(i))>>11)/(1<<53) >= hideShare {
				continue
			}
			for f := c.feature; f < c.feature+c.features; f++ {
				t.X[f*kernel.Rows+r] = 0
				t.Missing[f] |= 1 << r
			}
			t.X[c.indicator*kernel.Rows+r] = 1
		}
	}
}
