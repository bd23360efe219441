// Command elbo rebuilds rows with a variational autoencoder and scores how
// surprising each is. `elbo help` lists its verbs.
package main

import (
	"os"

	"github.com/elbo-stream/elbo/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
