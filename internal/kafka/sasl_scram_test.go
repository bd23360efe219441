package kafka

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// The example of RFC 7677, section 3.
func TestSCRAMExample(t *testing.T) {
	s := newSCRAM(MechanismSCRAM256, "user", "pencil")
	s.nonce = "rOprNGfwEbeRWgbNEkqO"
	if got, want := string(s.first()), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"; got != want {
		t.Fatalf("first() = %q, want %q", got, want)
	}
	got, err := s.final([]byte("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"))
	if want := "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="; err != nil || string(got) != want {
		t.Fatalf("final() = %q, %v, want %q", got, err, want)
	}
	const proof = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	for _, text := range []string{proof, proof + ",x=y"} {
		if err := s.verify([]byte(text)); err != nil {
			t.Errorf("verify(%q) = %v, want nil", text, err)
		}
	}
	for _, text := range []string{"", "v=", "v=!", strings.Replace(proof, "6", "7", 1), proof[2:], "r=" + proof} {
		if err := s.verify([]byte(text)); !errors.Is(err, errFalseBroker) {
			t.Errorf("verify(%q) = %v, want errFalseBroker", text, err)
		}
	}
	if err := s.verify([]byte("e=invalid-proof")); err == nil || err.Error() != "invalid-proof" {
		t.Errorf("verify(e=invalid-proof) = %v", err)
	}
}

func TestSCRAMHostileFirst(t *testing.T) {
	for _, c := range []struct{ message, want string }{
		{"", "another form"},
		{"r=,s=,i=", "does not continue ours"},
		{"r=NONCE,s=AAAA,i=4096", "does not continue ours"},
		{"r=other,s=AAAA,i=4096", "does not continue ours"},
		{"r=NONCEx,s=,i=4096", "no salt"},
		{"r=NONCEx,s=!!,i=4096", "no salt"},
		{"r=NONCEx,s=AAAA,i=1", "number of rounds"},
		{"r=NONCEx,s=AAAA,i=4095", "number of rounds"},
		{"r=NONCEx,s=AAAA,i=2000000000", "number of rounds"},
		{"r=NONCEx,s=AAAA,i=-1", "number of rounds"},
		{"r=NONCEx,s=AAAA", "another form"},
		{"m=ext,r=NONCEx,s=AAAA,i=4096", "another form"},
		{"e=unknown-user", "another form"},
	} {
		s := newSCRAM(MechanismSCRAM512, "user", "geheim")
		s.first()
		_, err := s.final([]byte(strings.ReplaceAll(c.message, "NONCE", s.nonce)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("final(%q) = %v, want %q", c.message, err, c.want)
		}
	}
}

// A broker that lets everybody in does not know the password: the client leaves.
func TestSCRAMFalseBroker(t *testing.T) {
	for name, final := range map[string]string{"no signature": "", "wrong signature": "v=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), "error": "e=other-error"} {
		t.Run(name, func(t *testing.T) {
			addr := scripted{answer: func(i int, m []byte) ([]byte, int16, string) {
				if i == 0 {
					_, nonce, _ := strings.Cut(string(m), ",r=")
					return []byte("r=" + nonce + "x,s=AAAA,i=4096"), 0, ""
				}
				return []byte(final), 0, ""
			}}.start(t)
			_, _, err := logIn(t, &Security{Mechanism: MechanismSCRAM256, User: "user", Password: NewCredential("geheim")}, "localhost", addr)
			if name == "error" {
				wantAuth(t, err, "was refused: other-error: check sasl.user and sasl.password")
			} else {
				wantAuth(t, err, "the broker's signature is wrong, so it does not know the password itself: somebody else may answer at this address")
			}
		})
	}
	addr := scripted{answer: func(int, []byte) ([]byte, int16, string) { return []byte("hello"), 0, "" }}.start(t)
	_, _, err := logIn(t, &Security{Mechanism: MechanismSCRAM256, User: "user", Password: NewCredential("geheim")}, "localhost", addr)
	wantAuth(t, err, `the broker's first message "hello": has another form`)
}

// An account of SCRAM never sends the same proof twice, nor the password.
func TestSCRAMProofDiffers(t *testing.T) {
	seen := map[string]bool{}
	for range 10 {
		s := newSCRAM(MechanismSCRAM256, "u", "geheim")
		first := string(s.first())
		final, err := s.final([]byte("r=" + s.nonce + "x,s=AAAA,i=4096"))
		if err != nil {
			t.Fatal(err)
		}
		if text := first + string(final); seen[text] || strings.Contains(text, "geheim") || len(s.nonce) < 20 {
			t.Fatalf("messages %q", text)
		}
		seen[first+string(final)] = true
	}
}

func FuzzSCRAM(f *testing.F) {
	f.Add("r=NONCEx,s=AAAA,i=4096", "v=AAAA")
	f.Add("r=NONCEx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,x=y", "e=x")
	f.Fuzz(func(t *testing.T, first, last string) {
		s := newSCRAM(MechanismSCRAM256, "user", "geheim")
		s.first()
		if i := strings.LastIndex(first, "i="); i >= 0 && len(first)-i > 6 {
			return // many rounds are slow, and are tested elsewhere
		}
		if _, err := s.final([]byte(strings.ReplaceAll(first, "NONCE", s.nonce))); err != nil {
			return
		}
		if s.verify([]byte(last)) == nil { // would need the password and our nonce
			t.Fatalf("the made-up signature %q was taken", last)
		}
	})
}
