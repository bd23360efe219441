// Package bounce has programs copy a topic while they, and the brokers, are
// killed, stopped and started again, and judges the copy: the shape of Kafka's
// own test of its transactions, for any program that copies.
//
//	result, err := bounce.Run(ctx, cluster, bounce.Copier{
//		Command: []string{"elbo", "run", "{config}"}, Config: yaml,
//	}, bounce.Plan{Messages: 100_000, Copiers: 2, Kill: 2 * time.Second, Brokers: bounce.Hard})
//
// The thing people get wrong is to call a run good because nothing is lost: one in
// which no fault struck proves nothing, so a Result counts them.
package bounce

import (
	"fmt"
	"strings"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/oracle"
)

// A Copier is how to run a program that copies a topic until SIGTERM.
type Copier struct {
	// Command is the program and its arguments, with {config} for the name of the
	// file that Config becomes, and the words of Config.
	Command []string
	// Config is a text with these words in it: {brokers} (host:port, parted by
	// commas), {in} and {out} (topics), {group}, {index} (of the process, from 0) and {dir} (a
	// folder of the process's own, kept over restarts).
	Config string
	Env    []string // added to ours
	// Drained is the exit status behind SIGTERM when all is well.
	Drained int
}

// BrokerFault is what happens to brokers, one after the other.
type BrokerFault string

// The faults of brokers.
const (
	None  BrokerFault = ""
	Clean BrokerFault = "clean" // SIGTERM
	Hard  BrokerFault = "hard"  // SIGKILL
	Mixed BrokerFault = "mixed" // one or the other
)

// A Plan says what is copied and what goes wrong meanwhile. Messages and Copiers
// must be set. With a duration of 0 that fault does not occur.
type Plan struct {
	Messages   int
	Partitions int // of both topics; 0 means 4
	Copiers    int
	// Spread is how long the messages take to be written, so that faults strike all
	// along; 0 writes them before the copiers start.
	Spread time.Duration
	// Kill, Term and Freeze are the mean times between two such faults of one copier:
	// SIGKILL, SIGTERM, and SIGSTOP with SIGCONT after FreezeFor.
	Kill, Term, Freeze time.Duration
	FreezeFor          time.Duration
	// Brokers are bounced one at a time; the next one BrokerPause after all replicas
	// are in sync again. 0 means 2 s.
	Brokers     BrokerFault
	BrokerPause time.Duration
	// Faults is how long faults go on; 0 means until Spread is over.
	Faults time.Duration
	// Settle is how long after the last fault everything must be copied; 0 means 2 min.
	Settle time.Duration
	// Stop is how long a copier may take to end after SIGTERM; 0 means 30 s.
	Stop time.Duration
	Seed uint64
	// ID tells messages apart; nil means oracle.ByKey. Each has its id as key, too, and
	// as the field id of its value, a JSON object.
	ID func(oracle.Record) string
}

func (p Plan) withDefaults() Plan {
	set := func(v *time.Duration, to time.Duration) {
		if *v == 0 {
			*v = to
		}
	}
	set(&p.BrokerPause, 2*time.Second)
	set(&p.Faults, p.Spread)
	set(&p.Settle, 2*time.Minute)
	set(&p.Stop, 30*time.Second)
	set(&p.FreezeFor, 10*time.Second)
	if p.Partitions == 0 {
		p.Partitions = 4
	}
	if p.ID == nil {
		p.ID = oracle.ByKey
	}
	return p
}

// A Result is what happened.
type Result struct {
	Report                    oracle.Report
	Kills, Terms, Freezes     int // of copiers
	CleanBounces, HardBounces int // of brokers
	Took                      time.Duration
	Settled                   time.Duration // from the last fault to the last message
	// Exits are the ends of copiers that nobody asked for, and ends after SIGTERM that
	// were not clean, each with the last lines that the program wrote.
	Exits []string
}

// Err returns what is wrong: the report's faults, and exits.
func (r Result) Err() error {
	if err := r.Report.Err(); err != nil {
		return err
	}
	if n := len(r.Exits); n > 0 {
		return fmt.Errorf("%d ends of copiers that nobody asked for:\n%s", n, strings.Join(r.Exits[:min(n, 5)], "\n"))
	}
	return nil
}

// String tells the result in a line.
func (r Result) String() string {
	return fmt.Sprintf("%d SIGKILL, %d SIGTERM, %d SIGSTOP of copiers; %d clean and %d hard bounces of brokers; took %v, settled %v after the last fault; %d odd exits; %v",
		r.Kills, r.Terms, r.Freezes, r.CleanBounces, r.HardBounces, r.Took.Round(time.Second), r.Settled.Round(100*time.Millisecond), len(r.Exits), r.Report)
}
