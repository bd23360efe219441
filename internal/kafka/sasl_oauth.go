package kafka

import (
	"errors"
	"net/url"
)

// tokenCache keeps tokens and keys from one connection to the next.
type tokenCache struct{}

func newTokenCache() *tokenCache { return &tokenCache{} }

func (o *OAuth) secret() source {
	return source{"sasl.oauth.client_secret", o.ClientSecret.Reveal(), o.ClientSecret.IsSet(), o.ClientSecretFile, o.ClientSecretEnv}
}

func (o *OAuth) check() []error {
	if (o.TokenFile == "") == (o.TokenURL == "") {
		return []error{errors.New("sasl.oauth.token_file: set it or sasl.oauth.token_url")}
	}
	if o.TokenURL == "" {
		return nil
	}
	var errs []error
	if u, err := url.Parse(o.TokenURL); err != nil || u.Host == "" {
		errs = append(errs, errors.New("sasl.oauth.token_url: is no URL"))
	}
	return append(errs, o.secret().check(true)...)
}
