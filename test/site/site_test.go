package site

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/test/lab"
	"gpuqd/test/wait"
)

// A part that fails ends the test: those after it have not what they need.
func TestSite(t *testing.T) {
	s := need(t)
	for _, part := range []struct {
		claim string
		test  func(*testing.T, *site)
	}{
		{"WrongInventoryStopsBeforeAnything", testWrongInventory},
		{"MissingSecretStopsBeforeAnything", testMissingSecret},
		{"CheckModeWorksOnBareHosts", testCheckBare},
		{"BareHostsBecomeASite", testMake},
		{"SecondRunChangesNothing", testAgain},
		{"CheckModeFindsNothingToDo", testCheckMade},
		{"VerifyRunsAJobOnEveryDevice", testVerify},
		{"AccountsMayNoMoreThanWasMeant", testAccounts},
		{"MonitoringSeesTheSite", testMonitoring},
		{"HostJoinsByLimit", testJoin},
		{"UpgradeInterruptsNoJob", testUpgrade},
		{"LossOfABrokerHostLosesNothing", testBrokerLoss},
		{"BackupComesBackAsAnotherLedger", testRestore},
		{"TeardownAsksFirst", testTeardown},
	} {
		if !t.Run(part.claim, func(t *testing.T) { part.test(t, s) }) {
			break
		}
	}
}

func testWrongInventory(t *testing.T, s *site) {
	for _, c := range []struct{ setting, says string }{
		{`{"gpuq_preflight_small": false}`, "gpuq_preflight_small"},
		{`{"gpuq_mongodb_wire_files": ["/nowhere/mongowire.deb"]}`, "/nowhere/mongowire.deb"},
		{`{"gpuq_gpuqd_settings": {"brokers": {}}}`, "brokers"},
		{`{"gpuq_rabbitmq_users": [{"name": "gpuqd"}]}`, "gpuq_rabbitmq_users"},
		{`{"gpuq_gpuqd_device_kind": "sim"}`, "gpuq_gpuqd_device_kind"},
		{`{"gpuq_gpuqd_lease_ttl": "1s"}`, "lease.ttl"},
		{`{"gpuq_preflight_memory_mib": 10000000}`, "gpuq_preflight_memory_mib"},
	} {
		expectStopped(t, s.tryPlay(t, "site.yml", "-e", c.setting), c.says)
	}
	s.write(t, "host_vars/site-gpu1.yml", "gpuq_gpuqd_pool: [default]\n")
	expectStopped(t, s.tryPlay(t, "site.yml"), "gpuq_gpuqd_pool,")
	s.write(t, "host_vars/site-gpu1.yml", "gpuq_address: here\n")
	expectStopped(t, s.tryPlay(t, "site.yml"), "gpuq_address")
	s.write(t, "host_vars/site-gpu1.yml", "{}\n")
}

func testMissingSecret(t *testing.T, s *site) {
	expectStopped(t, s.tryPlay(t, "site.yml", "-e", `{"gpuq_secrets_generate": false}`), "gpuq_broker_password")
	given := filepath.Join(s.dir, "given")
	if err := os.Mkdir(given, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"broker.password", "erlang.cookie", "rabbitmq_monitoring.password", "redis.password", "sentinel.password"} {
		if err := os.WriteFile(filepath.Join(given, name), []byte("given\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expectStopped(t, s.tryPlay(t, "site.yml", "-e", fmt.Sprintf(`{"gpuq_secrets_generate": false, "gpuq_secrets_dir": %q}`, given)), "alice")
}

func testCheckBare(t *testing.T, s *site) {
	s.play(t, "site.yml", "--check")
	for _, host := range s.all() {
		if out := s.on(t, host, "ls -d /etc/rabbitmq /etc/gpuqd /etc/redis /etc/ssl/gpuq /etc/prometheus /etc/loki /etc/promtail 2>/dev/null || true"); out != "" {
			t.Errorf("check mode has made %s on %s", out, host)
		}
	}
}

func testMake(t *testing.T, s *site) { s.play(t, "site.yml") }

func testAgain(t *testing.T, s *site) { expectNoChange(t, s.play(t, "site.yml")) }

func testCheckMade(t *testing.T, s *site) { expectNoChange(t, s.play(t, "site.yml", "--check")) }

func testVerify(t *testing.T, s *site) { expectNoChange(t, s.play(t, "verify.yml")) }

// testAccounts asks the broker itself, with the password that was made up.
func testAccounts(t *testing.T, s *site) {
	got := s.on(t, brokers[0], "rabbitmqctl --silent list_users | cut -f 1 | sort | xargs")
	if want := "alice gpuqd monitoring"; got != want {
		t.Errorf("the broker has the accounts %s, want %s", got, want)
	}
	got = s.on(t, brokers[0], "rabbitmqctl --silent list_user_permissions alice")
	if want := "/\t^$\t^(gpuq\\.submit|gpuq\\.control)$\t^$"; got != want {
		t.Errorf("alice may %q, want %q", got, want)
	}
	for _, file := range []string{"/etc/gpuqd/broker.password", "/etc/gpuqd/redis.password"} {
		if mode := s.on(t, gpus[0], "stat -c '%a %U' "+file); mode != "600 root" {
			t.Errorf("%s is %s, want 600 root", file, mode)
		}
	}
}

// asks is a program for the monitoring host, which asks Prometheus for the alerts that
// fire and Loki, with the host's certificate, for the lines that a query finds.
const asks = `import json, ssl, sys, urllib.parse, urllib.request
def ask(url, context=None):
    return json.load(urllib.request.urlopen(url, context=context))["data"]
what, query = sys.argv[1:]
if what == "alerts":
    print(" ".join(sorted(a["labels"]["alertname"] for a in ask("http://127.0.0.1:9090/api/v1/alerts")["alerts"] if a["state"] == "firing")))
else:
    site = ssl.create_default_context(cafile="/etc/ssl/gpuq/ca.pem")
    site.load_cert_chain("/etc/ssl/gpuq/host.pem", "/etc/ssl/gpuq/host.key")
    found = ask("https://127.0.0.1:3100/loki/api/v1/query_range?" + urllib.parse.urlencode({"query": query}), site)
    print("\n".join(sorted(stream["stream"]["host"] + " " + line for stream in found["result"] for _, line in stream["values"])))
`

// testMonitoring runs a job, looks for what it has printed, and for alerts, of which
// a site that is well has the one that always fires.
func testMonitoring(t *testing.T, s *site) {
	ask := func(what, query string) string {
		return s.on(t, watchers[0], lab.Quote("python3", "-c", asks, what, query))
	}
	job := s.submit(t, "echo seen in Loki")
	s.expectSucceeded(t, []string{job}, 1)
	wait.For(t, time.Minute, func() error {
		got := ask("lines", fmt.Sprintf(`{job="workers"} | job_id=%q | identifier="gpuqd-job"`, job))
		if host, line, _ := strings.Cut(got, " "); !slices.Contains(gpus, host) || line != "seen in Loki" {
			return fmt.Errorf("Loki has %q of the job", got)
		}
		return nil
	})
	if got := ask("alerts", ""); got != "Watchdog" {
		t.Errorf("the alerts are %q, want Watchdog alone", got)
	}
}

func testJoin(t *testing.T, s *site) {
	s.writeInventory(t, s.debs+"/"+versionFirst, true)
	r := s.play(t, "site.yml", "--limit", joining)
	for host := range r.Stats {
		if host != joining && host != "localhost" {
			t.Errorf("the run has touched %s", host)
		}
	}
	s.play(t, "verify.yml", "--limit", joining)
	expectNoChange(t, s.play(t, "site.yml", "--limit", joining))
	// The others have yet to hear its name; nothing else is due.
	for _, change := range s.play(t, "site.yml").changes() {
		if !strings.HasSuffix(change, ": Name the hosts of the site") && !strings.HasSuffix(change, "common : Name the hosts of the site") {
			t.Errorf("the other hosts were changed for one that joined: %s", change)
		}
	}
}

func testUpgrade(t *testing.T, s *site) {
	var jobs []string
	for range 12 {
		jobs = append(jobs, s.submit(t, "for i in $(seq 60); do sleep 1; done"))
	}
	s.writeInventory(t, s.debs+"/"+versionNext, true)
	s.play(t, "upgrade.yml")
	for _, host := range append(slices.Clone(gpus), joining) {
		if got := s.on(t, host, "gpuqd --version"); !strings.Contains(got, versionNext) {
			t.Errorf("%s has %s after the upgrade to %s", host, got, versionNext)
		}
	}
	s.expectSucceeded(t, jobs, 1)
	if r := s.play(t, "upgrade.yml"); len(r.changes()) > 0 {
		t.Errorf("a second upgrade has done %v", r.changes())
	}
	expectNoChange(t, s.play(t, "site.yml"))
}

func testBrokerLoss(t *testing.T, s *site) {
	var jobs []string
	for range 12 {
		jobs = append(jobs, s.submit(t, "sleep 10"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	lost := s.lab.Host(brokers[2])
	if err := lost.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	jobs = append(jobs, s.submit(t, "true"))
	s.expectSucceeded(t, jobs, 1)
	if err := lost.Start(ctx); err != nil {
		t.Fatal(err)
	}
	s.play(t, "verify.yml")
}

func testRestore(t *testing.T, s *site) {
	before := s.submit(t, "true")
	s.expectSucceeded(t, []string{before}, 1)
	old := s.ledger(t)
	s.play(t, "backup.yml")
	after := s.submit(t, "true")
	s.expectSucceeded(t, []string{after}, 1)
	from := s.inventory + "/backup/" + latest(t, s.inventory+"/backup")
	expectStopped(t, s.tryPlay(t, "restore.yml", "-e", "gpuq_restore_from="+from), "gpuq_restore_confirm")
	s.play(t, "restore.yml", "-e", "gpuq_restore_from="+from, "-e", "gpuq_restore_confirm=yes")
	if now := s.ledger(t); now == old {
		t.Errorf("the restored ledger has the ID %s, that of the one before", now)
	}
	s.expectSucceeded(t, []string{before}, 1)
	if out := s.on(t, gpus[0], "gpuqctl show "+after+" 2>&1 || true"); !strings.Contains(out, "no job") {
		t.Errorf("of a job that came after the backup gpuqctl says %s", out)
	}
	s.play(t, "verify.yml")
}

func testTeardown(t *testing.T, s *site) {
	expectStopped(t, s.tryPlay(t, "teardown.yml"), "gpuq_teardown_confirm")
	s.play(t, "teardown.yml", "-e", fmt.Sprintf("gpuq_teardown_confirm=%d", len(s.all())), "-e", "gpuq_teardown_data=true")
	for _, host := range s.all() {
		if out := s.on(t, host, "systemctl list-units --plain --no-legend --state=active 'gpuq*' 'rabbitmq*' 'redis*' 'prometheus*' mongowire.service"); out != "" {
			t.Errorf("on %s there still is %s", host, out)
		}
	}
}

// submit has the package's account submit a job, and returns its ID.
func (s *site) submit(t *testing.T, script string) string {
	t.Helper()
	return s.on(t, gpus[0], fmt.Sprintf("cd / && runuser -u gpuq -- gpuqctl submit -- sh -c '%s'", script))
}

// expectSucceeded waits until the jobs have ended, and checks that each succeeded
// at this attempt.
func (s *site) expectSucceeded(t *testing.T, jobs []string, attempt int) {
	t.Helper()
	for _, id := range jobs {
		wait.For(t, 5*time.Minute, func() error {
			var row struct {
				State   string
				Attempt int
				Reason  string
			}
			if err := json.Unmarshal([]byte(s.on(t, gpus[0], "gpuqctl show --json "+id)), &row); err != nil {
				return err
			}
			switch {
			case row.State == "succeeded" && row.Attempt == attempt:
				return nil
			case row.State == "succeeded":
				t.Fatalf("job %s took attempt %d, want %d", id, row.Attempt, attempt)
			}
			return fmt.Errorf("job %s is %s: %s", id, row.State, row.Reason)
		})
	}
}

// ledger returns the ID of the ledger, as a daemon tells it.
func (s *site) ledger(t *testing.T) string {
	t.Helper()
	var told struct {
		Daemon struct {
			LedgerID string `json:"ledger_id"`
		}
	}
	out := s.on(t, gpus[0], "gpuqctl version --json")
	if err := json.Unmarshal([]byte(out), &told); err != nil || told.Daemon.LedgerID == "" {
		t.Fatalf("gpuqctl version does not tell the ledger's ID: %s (%v)", out, err)
	}
	return told.Daemon.LedgerID
}

// latest returns the name of the newest backup; they are named by their time.
func latest(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("there is no backup in %s: %v", dir, err)
	}
	return entries[len(entries)-1].Name()
}
