package kafka

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// What a broker may ask for as PBKDF2 rounds: RFC 7677 wants at least 4,096, and
// a bound from above keeps a false broker from tying up a core.
const minRounds, maxRounds = 4096, 1_000_000

// errFalseBroker says that the broker does not know the password.
var errFalseBroker = errors.New("the broker's signature is wrong, so it does not know the password itself")

// scram is one run of SCRAM (RFC 5802, RFC 7677) without channel binding. As in
// Kafka, names and passwords are UTF-8 as they are, without SASLprep.
type scram struct {
	hash           func() hash.Hash
	user, password string
	nonce          string

	bare      string // our first message without its head
	signature []byte // what the broker must answer in the end
}

func newSCRAM(mechanism, user, password string) *scram {
	s := &scram{hash: sha256.New, user: user, password: password, nonce: rand.Text()}
	if mechanism == MechanismSCRAM512 {
		s.hash = sha512.New
	}
	return s
}

// first returns our first message.
func (s *scram) first() []byte {
	name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user)
	s.bare = "n=" + name + ",r=" + s.nonce
	return []byte("n,," + s.bare)
}

// final reads the broker's first message and returns our last one, the proof that
// we know the password.
func (s *scram) final(message []byte) ([]byte, error) {
	nonce, salt, rounds, err := s.parse(string(message))
	if err != nil {
		return nil, fmt.Errorf("the broker's first message %s: %w", quoteBytes(message), err)
	}
	salted, err := pbkdf2.Key(s.hash, s.password, salt, rounds, s.hash().Size())
	if err != nil {
		return nil, err
	}
	without := "c=biws,r=" + nonce // biws is n,, in base64
	signed := []byte(s.bare + "," + string(message) + "," + without)
	key := s.mac(salted, []byte("Client Key"))
	h := s.hash()
	h.Write(key)
	proof := s.mac(h.Sum(nil), signed)
	for i, b := range key {
		proof[i] ^= b
	}
	s.signature = s.mac(s.mac(salted, []byte("Server Key")), signed)
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// parse takes the broker's first message to pieces.
func (s *scram) parse(message string) (nonce string, salt []byte, rounds int, err error) {
	parts := strings.SplitN(message, ",", 4)
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "r=") || !strings.HasPrefix(parts[1], "s=") || !strings.HasPrefix(parts[2], "i=") {
		return "", nil, 0, errors.New("has another form than r=,s=,i=")
	}
	nonce = parts[0][2:]
	if !strings.HasPrefix(nonce, s.nonce) || len(nonce) == len(s.nonce) {
		return "", nil, 0, errors.New("has a nonce that does not continue ours")
	}
	salt, err = base64.StdEncoding.DecodeString(parts[1][2:])
	if err != nil || len(salt) == 0 {
		return "", nil, 0, errors.New("has no salt in base64")
	}
	rounds, err = strconv.Atoi(parts[2][2:])
	if err != nil || rounds < minRounds || rounds > maxRounds {
		return "", nil, 0, fmt.Errorf("asks for a number of rounds that is not between %d and %d", minRounds, maxRounds)
	}
	return nonce, salt, rounds, nil
}

// verify reads the broker's last message, the proof that it knows the password too.
func (s *scram) verify(message []byte) error {
	text := string(message)
	if reason, ok := strings.CutPrefix(text, "e="); ok {
		return errors.New(reason)
	}
	text, _, _ = strings.Cut(text, ",")
	proof, ok := strings.CutPrefix(text, "v=")
	got, err := base64.StdEncoding.DecodeString(proof)
	if !ok || err != nil || !hmac.Equal(got, s.signature) {
		return errFalseBroker
	}
	return nil
}

func (s *scram) mac(key, text []byte) []byte {
	h := hmac.New(s.hash, key)
	h.Write(text)
	return h.Sum(nil)
}
