package eval_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The page shows without an error in a real browser, and no wider than a phone.
func TestInBrowser(t *testing.T) {
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		t.Skip("SKIPPED: no chromium on PATH, so the report was not opened in a browser")
	}
	var page bytes.Buffer
	if err := detailed(t).WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "report.html"), page.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, width := range []int{400, 1280} {
		// The script stands around the page, which has none, and measures it.
		frame := fmt.Sprintf(`<!DOCTYPE html><body style="margin:0"><iframe id="f" src="report.html" style="border:0;width:%dpx;height:900px"></iframe>
<script>onload=()=>{const d=document.getElementById("f").contentDocument;document.title=d.documentElement.scrollWidth+" of "+d.querySelectorAll("svg").length}</script>`, width)
		if err := os.WriteFile(filepath.Join(dir, "frame.html"), []byte(frame), 0o666); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		cmd := exec.CommandContext(ctx, browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr",
			"--user-data-dir="+filepath.Join(dir, "profile"), "--dump-dom", "file://"+filepath.Join(dir, "frame.html"))
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		cancel()
		found := regexp.MustCompile(`<title>(\d+) of (\d+)</title>`).FindStringSubmatch(stdout.String())
		if err != nil || found == nil {
			t.Skipf("SKIPPED: %s does not run here: %v\n%.500s", browser, err, stderr.String())
		}
		if got, _ := strconv.Atoi(found[1]); got > width {
			t.Errorf("the page is %d pixels wide in a window of %d", got, width)
		}
		if found[2] != "6" {
			t.Errorf("the browser found %s pictures, want 6", found[2])
		}
		for line := range strings.Lines(stderr.String()) {
			if strings.Contains(line, "CONSOLE") {
				t.Errorf("console: %s", line)
			}
		}
	}
}
