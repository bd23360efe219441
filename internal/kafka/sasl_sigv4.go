package kafka

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// What AWS calls the parts of a signature (Signature Version 4).
const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigTime      = "20060102T150405Z"
	sigEnd       = "aws4_request"
	sigNoBody    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of nothing
	mskLife      = "900"                                                              // seconds; the longest that is taken
)

// awsKeys are what requests to AWS are signed with. They print nothing of use to
// others: the parts that are secret are Credentials.
type awsKeys struct {
	id      string
	secret  Credential
	session Credential // not set: long-lived keys
}

// sign returns the scope of a signature and the signature of a canonical request.
func (k awsKeys) sign(canonical, region, service string, now time.Time) (scope, signature string) {
	day := now.UTC().Format("20060102")
	scope = strings.Join([]string{day, region, service, sigEnd}, "/")
	digest := sha256.Sum256([]byte(canonical))
	text := strings.Join([]string{sigAlgorithm, now.UTC().Format(sigTime), scope, hex.EncodeToString(digest[:])}, "\n")
	key := []byte("AWS4" + k.secret.Reveal())
	for _, part := range []string{day, region, service, sigEnd, text} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	return scope, hex.EncodeToString(key)
}

// mskToken returns the token that MSK takes as an OAUTHBEARER token: the presigned
// URL of a request that nobody sends, in base64.
func (k awsKeys) mskToken(region string, now time.Time) string {
	host := "kafka." + region + ".amazonaws.com"
	query := url.Values{
		"Action":              {"kafka-cluster:Connect"},
		"X-Amz-Algorithm":     {sigAlgorithm},
		"X-Amz-Credential":    {k.id + "/" + now.UTC().Format("20060102") + "/" + region + "/kafka-cluster/" + sigEnd},
		"X-Amz-Date":          {now.UTC().Format(sigTime)},
		"X-Amz-Expires":       {mskLife},
		"X-Amz-SignedHeaders": {"host"},
	}
	if k.session.IsSet() {
		query.Set("X-Amz-Security-Token", k.session.Reveal())
	}
	canonical := strings.Join([]string{http.MethodGet, "/", canonicalQuery(query), "host:" + host + "\n", "host", sigNoBody}, "\n")
	_, signature := k.sign(canonical, region, "kafka-cluster", now)
	query.Set("X-Amz-Signature", signature)
	query.Set("User-Agent", "elbo") // not signed; MSK shows it to the owner
	return base64.RawURLEncoding.EncodeToString([]byte("https://" + host + "/?" + canonicalQuery(query)))
}

// canonicalQuery is the query sorted by name, a space as %20.
func canonicalQuery(q url.Values) string { return strings.ReplaceAll(q.Encode(), "+", "%20") }

// signForm signs a POST of a form to the root of a service.
func (k awsKeys) signForm(req *http.Request, form, region, service string, now time.Time) {
	req.Header.Set("X-Amz-Date", now.UTC().Format(sigTime))
	headers := [][2]string{
		{"content-type", req.Header.Get("Content-Type")},
		{"host", req.URL.Host},
		{"x-amz-date", now.UTC().Format(sigTime)},
	}
	if k.session.IsSet() {
		req.Header.Set("X-Amz-Security-Token", k.session.Reveal())
		headers = append(headers, [2]string{"x-amz-security-token", k.session.Reveal()})
	}
	var lines, names string
	for i, h := range headers {
		lines += h[0] + ":" + h[1] + "\n"
		if i > 0 {
			names += ";"
		}
		names += h[0]
	}
	digest := sha256.Sum256([]byte(form))
	canonical := strings.Join([]string{req.Method, "/", "", lines, names, hex.EncodeToString(digest[:])}, "\n")
	scope, signature := k.sign(canonical, region, service, now)
	req.Header.Set("Authorization", sigAlgorithm+" Credential="+k.id+"/"+scope+", SignedHeaders="+names+", Signature="+signature)
}
