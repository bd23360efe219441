package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
)

// An AuthError says that we are not let in. Trying again with the same settings
// does not help, and may lock the account.
type AuthError struct {
	Addr      string // host:port
	Mechanism string
	User      string // "" where the mechanism has none that we know
	Reason    string // the broker's text, or our own
	Hint      string // the next step
	Err       error  // the cause, such as kafka-go's SASLAuthenticationFailed
}

// Error returns one sentence: where, who, the reason and the next step.
func (e *AuthError) Error() string {
	who := ""
	if e.User != "" {
		who = fmt.Sprintf(" as user %q", e.User)
	}
	text := fmt.Sprintf("authentication to %s%s with %s was refused: %s", e.Addr, who, e.Mechanism, e.Reason)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}

// Unwrap returns the cause.
func (e *AuthError) Unwrap() error { return e.Err }

// Temporary returns false.
func (e *AuthError) Temporary() bool { return false }

// login logs in on conn, on which ApiVersions may have been asked and nothing else.
// It returns when to do so again, on this connection between two requests (KIP-368)
// or on a new one: the broker cuts a session that ends. Zero means never. Host is as
// in wrap. A refusal is an *AuthError; after any error the connection is of no use.
// Conn's deadline is cleared.
func (s *Security) login(ctx context.Context, conn *protocol.Conn, host string) (renew time.Time, err error) {
	if s.Mechanism == "" {
		return time.Time{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, untilDeadline(ctx))
	defer cancel()
	// One clock alone ends the wait, so that the error is always that of ctx.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return time.Time{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	d := &dialogue{addr: addressOf(conn, host), conn: conn, security: s, start: time.Now(), hint: "check that this is the broker's SASL port"}
	err = d.run(ctx)
	if !stop() {
		return time.Time{}, fmt.Errorf("authentication to %s with %s: %w", d.addr, s.Mechanism, errors.Join(context.Cause(ctx), err))
	}
	if err != nil {
		return time.Time{}, err
	}
	return d.renewal(), nil
}

// dialogue is one authentication on one connection.
type dialogue struct {
	addr     string
	conn     *protocol.Conn
	security *Security
	start    time.Time
	user     string
	hint     string        // for when the broker refuses
	lifetime time.Duration // of the session; 0 is for ever
}

func (d *dialogue) run(ctx context.Context) error {
	wire := d.security.Mechanism
	if wire == MechanismAWS {
		wire = MechanismOAuthBearer
	}
	if err := d.handshake(wire); err != nil {
		return err
	}
	switch d.security.Mechanism {
	case MechanismPlain, MechanismSCRAM256, MechanismSCRAM512:
		return d.byPassword()
	case MechanismOAuthBearer:
		return d.byOAuth(ctx)
	case MechanismAWS:
		return d.byAWS(ctx)
	}
	return fmt.Errorf("sasl.mechanism: %q is unknown", d.security.Mechanism)
}

// handshake agrees on the mechanism.
func (d *dialogue) handshake(mechanism string) error {
	m, err := d.conn.RoundTrip(&saslhandshake.Request{Mechanism: mechanism})
	if err != nil {
		return d.failed(err)
	}
	r := m.(*saslhandshake.Response)
	code := kafkago.Error(r.ErrorCode)
	switch code {
	case 0:
		return nil
	case kafkago.UnsupportedSASLMechanism:
		if len(r.Mechanisms) == 0 {
			return d.refused("the broker offers no mechanism", "use the broker's SASL port", code)
		}
		slices.Sort(r.Mechanisms)
		return d.refused("the broker offers "+strings.Join(r.Mechanisms, ", "), "set sasl.mechanism to one of them", code)
	case kafkago.IllegalSASLState:
		return d.refused("this port asks for no authentication", "use the broker's SASL port, or set no sasl.mechanism", code)
	}
	return d.refused(code.Title(), "check sasl.mechanism", code)
}

// send gives the broker our next message and returns its answer.
func (d *dialogue) send(message []byte) ([]byte, error) {
	m, err := d.conn.RoundTrip(&saslauthenticate.Request{AuthBytes: message})
	if err != nil {
		return nil, d.failed(err)
	}
	r := m.(*saslauthenticate.Response)
	if code := kafkago.Error(r.ErrorCode); code != 0 {
		reason := r.ErrorMessage
		if reason == "" {
			reason = code.Title()
		}
		return nil, d.refused(reason, d.hint, code)
	}
	d.lifetime = time.Duration(r.SessionLifetimeMs) * time.Millisecond
	return r.AuthBytes, nil
}

// renewal is when to log in again: at 85 to 95 % of the session's life, so that
// many connections do not do so at once.
func (d *dialogue) renewal() time.Time {
	if d.lifetime <= 0 {
		return time.Time{}
	}
	return d.start.Add(time.Duration((0.85 + 0.1*rand.Float64()) * float64(d.lifetime)))
}

func (d *dialogue) refused(reason, hint string, cause error) error {
	return &AuthError{Addr: d.addr, Mechanism: d.security.Mechanism, User: d.user, Reason: reason, Hint: hint, Err: cause}
}

// failed is about a connection that broke. Brokers before 1.0, and some others,
// close it on a wrong password, but so does a broker that restarts.
func (d *dialogue) failed(err error) error {
	if isCut(err) {
		return fmt.Errorf("authentication to %s with %s: the broker closed the connection; if it always does, %s: %w", d.addr, d.security.Mechanism, d.hint, err)
	}
	return fmt.Errorf("authentication to %s with %s: %w", d.addr, d.security.Mechanism, err)
}

// byPassword is PLAIN and SCRAM.
func (d *dialogue) byPassword() error {
	s := d.security
	user, err := s.user().read()
	if err != nil {
		return err
	}
	password, err := s.password().read()
	if err != nil {
		return err
	}
	d.user, d.hint = user, "check "+s.user().name()+" and "+s.password().name()
	if s.Mechanism != MechanismPlain {
		return d.scram(user, password)
	}
	if strings.ContainsRune(user+password, 0) {
		return fmt.Errorf("%s or %s: has a zero byte, which PLAIN cannot carry", s.user().name(), s.password().name())
	}
	_, err = d.send([]byte("\x00" + user + "\x00" + password))
	return err
}

func (d *dialogue) scram(user, password string) error {
	s := newSCRAM(d.security.Mechanism, user, password)
	answer, err := d.send(s.first())
	if err != nil {
		return err
	}
	proof, err := s.final(answer)
	if err != nil {
		return d.refused(err.Error(), "check that the address is the broker's", err)
	}
	if answer, err = d.send(proof); err != nil {
		return err
	}
	err = s.verify(answer)
	switch {
	case errors.Is(err, errFalseBroker):
		return d.refused(err.Error(), "somebody else may answer at this address", err)
	case err != nil:
		return d.refused(excerpt(err.Error()), d.hint, err)
	}
	return nil
}
