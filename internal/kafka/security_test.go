package kafka

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func TestCredentialIsNeverShown(t *testing.T) {
	const secret = "correct horse"
	s := &Security{
		Mechanism: MechanismPlain, User: "x", Password: NewCredential(secret),
		OAuth: OAuth{ClientSecret: NewCredential(secret)},
	}
	hidden := struct{ s Security }{*s} // fmt cannot call methods in here
	keys := newKeys("id", secret, secret)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{s, *s, s.Password, &s.Password, hidden, &hidden, keys, []Credential{s.Password}, map[string]Credential{"a": s.Password}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "p", s.Password, "h", hidden, "k", keys)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "p", s.Password, "h", hidden)
	if err := json.NewEncoder(&out).Encode(s); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprint([]byte(secret))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the password is in the output as %q", form)
		}
	}
	if got := s.Password.String(); got != "***" {
		t.Errorf("String() = %q, want ***", got)
	}
	if got := s.Password.Reveal(); got != secret {
		t.Errorf("Reveal() = %q, want the text", got)
	}
	var zero Credential
	if zero.IsSet() || zero.Reveal() != "" || !NewCredential("").IsSet() {
		t.Error("IsSet of the zero value and of an empty text want false and true")
	}
}

func TestCheck(t *testing.T) {
	password := NewCredential("p")
	on := TLS{Enabled: true}
	for _, c := range []struct {
		name string
		s    Security
		want []string // nothing: no error
	}{
		{"nothing", Security{}, nil},
		{"plain", Security{Mechanism: "PLAIN", User: "u", Password: password}, nil},
		{"empty password", Security{Mechanism: "PLAIN", User: "u", Password: NewCredential("")}, nil},
		{"scram by files", Security{Mechanism: "SCRAM-SHA-512", UserFile: "u", PasswordFile: "p"}, nil},
		{"scram by variables", Security{Mechanism: "SCRAM-SHA-256", UserEnv: "U", PasswordEnv: "P"}, nil},
		{"no user, no password", Security{Mechanism: "PLAIN"}, []string{
			"sasl.user_file: must be set (or sasl.user, or sasl.user_env)",
			"sasl.password_file: must be set (or sasl.password, or sasl.password_env)"}},
		{"two passwords", Security{Mechanism: "PLAIN", User: "u", Password: password, PasswordEnv: "P"}, []string{
			"sasl.password: set one of sasl.password, sasl.password_file and sasl.password_env, not 2"}},
		{"unknown mechanism", Security{Mechanism: "plain"}, []string{
			`sasl.mechanism: "plain" is unknown: use one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, AWS_MSK_IAM`}},
		{"no mechanism", Security{User: "u", Password: password, OAuth: OAuth{TokenFile: "f", TokenURL: "u"}}, []string{
			"sasl.user: is set, but sasl.mechanism is not set",
			"sasl.password: is set, but sasl.mechanism is not set",
			"sasl.oauth.token_file: is set, but sasl.mechanism is not set",
			"sasl.oauth.token_url: is set, but sasl.mechanism is not set"}},
		{"tls off", Security{TLS: TLS{CAFile: "a", CertFile: "b", KeyFile: "c", ServerName: "d"}}, []string{
			"tls.ca_file: is set, but tls.enabled is false", "tls.cert_file: is set, but tls.enabled is false",
			"tls.key_file: is set, but tls.enabled is false", "tls.server_name: is set, but tls.enabled is false"}},
		{"certificate without key", Security{TLS: TLS{Enabled: true, CertFile: "a"}}, []string{"tls.key_file: must be set, because tls.cert_file is"}},
		{"key without certificate", Security{TLS: TLS{Enabled: true, KeyFile: "a"}}, []string{"tls.cert_file: must be set, because tls.key_file is"}},
		{"token file", Security{Mechanism: "OAUTHBEARER", OAuth: OAuth{TokenFile: "f"}}, nil},
		{"token url", Security{Mechanism: "OAUTHBEARER", OAuth: OAuth{TokenURL: "https://a/b", ClientID: "i", ClientSecretFile: "f"}}, nil},
		{"no token", Security{Mechanism: "OAUTHBEARER"}, []string{"sasl.oauth.token_file: must be set (or sasl.oauth.token_url)"}},
		{"two tokens, bad everything", Security{Mechanism: "OAUTHBEARER", OAuth: OAuth{TokenFile: "f", TokenURL: "ftp://a", Extensions: map[string]string{"auth": "x", "a1": "x", "b": "é"}}}, []string{
			`sasl.oauth.extensions: "a1" cannot be a name: use letters, and not auth`,
			`sasl.oauth.extensions: "auth" cannot be a name: use letters, and not auth`,
			`sasl.oauth.extensions: the value of "b" is empty or has other characters than ASCII's`,
			"sasl.oauth.token_file: set it or sasl.oauth.token_url, not both",
			"sasl.oauth.token_url: must be an https URL",
			"sasl.oauth.client_id: must be set, because token_url is",
			"sasl.oauth.client_secret_file: must be set (or sasl.oauth.client_secret, or sasl.oauth.client_secret_env)"}},
		{"user in url", Security{Mechanism: "OAUTHBEARER", OAuth: OAuth{TokenURL: "https://u:geheim@a/b", ClientID: "i", ClientSecretFile: "f"}}, []string{
			"sasl.oauth.token_url: has a user in it: use client_id and client_secret_file"}},
		{"msk", Security{Mechanism: "AWS_MSK_IAM", TLS: on}, nil},
		{"msk without tls", Security{Mechanism: "AWS_MSK_IAM", AWS: AWS{RoleARN: "reader"}}, []string{
			"tls.enabled: AWS_MSK_IAM is spoken over TLS only", `sasl.aws.role_arn: "reader" is no ARN`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := c.s.Check(); err != nil {
				got = err.Error()
			}
			if want := strings.Join(c.want, "\n"); got != want {
				t.Errorf("Check() =\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		s    Security
		want []string
	}{
		{Security{}, nil},
		{Security{TLS: TLS{Enabled: true}, Mechanism: "PLAIN"}, nil},
		{Security{Mechanism: "SCRAM-SHA-256"}, nil},
		{Security{Mechanism: "PLAIN"}, []string{"sasl.mechanism: PLAIN without tls.enabled sends the credentials in the clear"}},
		{Security{TLS: TLS{Enabled: true, Insecure: true}}, []string{"tls.insecure: nobody checks who the broker is"}},
		{Security{TLS: TLS{Enabled: true}, Mechanism: "OAUTHBEARER", OAuth: OAuth{TokenURL: "http://a"}},
			[]string{"sasl.oauth.token_url: http sends the client's secret in the clear"}},
	} {
		if got := c.s.Warnings(); !slices.Equal(got, c.want) {
			t.Errorf("Warnings() = %q, want %q", got, c.want)
		}
	}
}

func TestValidateReadsEveryFile(t *testing.T) {
	dir := t.TempDir()
	junk := putFile(t, dir, "junk", []byte("no PEM"))
	empty := putFile(t, dir, "empty", []byte("\r\n"))
	s := &Security{
		TLS:       TLS{Enabled: true, CAFile: junk, CertFile: dir + "/none", KeyFile: junk},
		Mechanism: "PLAIN", UserEnv: "ELBO_TEST_UNSET", PasswordFile: empty,
	}
	wantWords(t, s.validate(), "tls.ca_file: "+junk+" has no PEM certificate", "tls.cert_file: open "+dir+"/none: no such file",
		"sasl.user_env: the environment variable ELBO_TEST_UNSET is not set", "sasl.password_file: "+empty+" is empty")
	a := newAuthority(t, "authority")
	cert, _ := a.issue(nil, "x")
	_, key := a.issue(nil, "y")
	s = &Security{TLS: TLS{Enabled: true, CertFile: putFile(t, dir, "cert", cert), KeyFile: putFile(t, dir, "key", key)}}
	wantWords(t, s.validate(), "tls.cert_file "+dir+"/cert with tls.key_file "+dir+"/key: private key does not match public key")
	s = &Security{Mechanism: "OAUTHBEARER", OAuth: OAuth{TokenURL: "https://a", ClientID: "c", ClientSecretFile: dir + "/none"}}
	wantWords(t, s.validate(), "sasl.oauth.client_secret_file: open")
	wantWords(t, (&Security{Mechanism: "x"}).validate(), "sasl.mechanism")
	if err := (&Security{}).validate(); err != nil {
		t.Errorf("validate() of nothing = %v, want nil", err)
	}
}

func TestSourceIsReadAnew(t *testing.T) {
	dir := t.TempDir()
	path := putFile(t, dir, "password", []byte(" one \r\n"))
	s := (&Security{PasswordFile: path}).password()
	for _, c := range []struct{ content, want string }{{" one \r\n", " one "}, {"two", "two"}, {"a\nb\n", "a\nb"}} {
		putFile(t, dir, "password", []byte(c.content))
		if got, err := s.read(); got != c.want || err != nil {
			t.Errorf("read() of %q = %q, %v, want %q", c.content, got, err, c.want)
		}
	}
	t.Setenv("ELBO_TEST_PASSWORD", "three")
	s = (&Security{PasswordEnv: "ELBO_TEST_PASSWORD"}).password()
	if got, err := s.read(); got != "three" || err != nil {
		t.Errorf("read() of a variable = %q, %v, want three", got, err)
	}
}
