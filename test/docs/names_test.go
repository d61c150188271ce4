package docs

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// documented are the files whose types travel or are stored.
var documented = []string{
	"daemon/job/job.go", "daemon/job/message.go", "daemon/job/spec.go",
	"daemon/control/operate.go", "daemon/control/simulate.go", // first: its Drain is the ledger's, less the ID
	"daemon/ledger/hosts.go", "daemon/ledger/drains.go", "daemon/ledger/resumes.go", "daemon/ledger/records.go",
	"daemon/control/api.go", "daemon/control/errors.go", "daemon/control/devices.go", "daemon/control/faults.go", "daemon/fault/fault.go",
}

var typeItem = regexp.MustCompile("^`([A-Z][A-Za-z]+)`: ")

// A field that is added, renamed or dropped changes the page, too.
func TestEveryFieldIsDescribed(t *testing.T) {
	p := readPage(t)
	onPage := map[string][]string{}
	for _, item := range append(p.section(t, "## 5. For clients").items(), p.section(t, "## 6. The ledger's documents").items()...) {
		if strings.Contains(item, " → ") {
			continue // a compare-and-set
		}
		if m := typeItem.FindStringSubmatch(item); m != nil {
			onPage[m[1]] = code(item[len(m[0]):])
		}
	}
	for _, row := range p.table(t, "Field of `Spec`") {
		onPage["Spec"] = append(onPage["Spec"], code(row[0])...)
	}
	inCode := readSource(t, documented...).structs
	for name, fields := range inCode {
		sameNames(t, "type "+name, onPage[name], fields)
	}
	for name := range onPage {
		if inCode[name] == nil {
			t.Errorf("type %s is on the page and in none of the files", name)
		}
	}
}

// A constant that is added has to be explained.
func TestEveryConstantIsNamed(t *testing.T) {
	p := readPage(t)
	states, clients := p.section(t, "## 3. States"), p.section(t, "## 5. For clients")
	for _, c := range []struct {
		dir, kind string
		where     page
	}{
		{"daemon/job", "State", states},
		{"daemon/job", "Class", states},
		{"daemon/job", "Priority", clients},
		{"daemon/control", "Verb", clients},
		{"daemon/control", "Code", clients},
		{"daemon/control", "Via", clients},
		{"daemon/ledger", "SessionState", p.section(t, "## 6. The ledger's documents")},
		{"daemon/ledger", "Collection", p.section(t, "## 6. The ledger's documents")},
		{"daemon/runner", "StopReason", p.section(t, "## 4. A job's way")},
	} {
		for _, value := range readSource(t, matching(t, c.dir)...).of(t, c.kind) {
			if !slices.Contains(code(c.where.prose()), value) {
				t.Errorf("%s %q of %s is not named", c.kind, value, c.dir)
			}
		}
	}
}

// Exchanges, queues, headers and what queues are declared with.
func TestBrokerNamesAreOnThePage(t *testing.T) {
	clients := readPage(t).section(t, "## 5. For clients")
	all := readSource(t, "daemon/broker/topology.go", "daemon/broker/message.go").constants
	if len(all) < 10 {
		t.Errorf("only %d names were found: this test shows nothing", len(all))
	}
	for _, c := range all {
		if !strings.Contains(clients.text, c.value) {
			t.Errorf("%s, %q, is not named", c.name, c.value)
		}
	}
	var steps []string
	for _, step := range broker.RetryLadder {
		steps = append(steps, broker.RetryQueue(step))
	}
	var onPage []string
	for _, name := range code(clients.prose()) {
		if strings.HasPrefix(name, "gpuq.retry.") && !strings.Contains(name, "<") {
			onPage = append(onPage, name)
		}
	}
	sameNames(t, "ladder", onPage, steps)
	shape := job.Shape{Pool: "<pool>", Priority: "<priority>", GPUs: 7, Class: "<class>"}.Queue()
	for _, name := range []string{strings.Replace(shape, "7", "<N>", 1), broker.HostKey("<host>"), broker.HostKey("<name>")} {
		if !slices.Contains(code(clients.prose()), name) {
			t.Errorf("the form %q is not named", name)
		}
	}
}

// What every queue is declared with is read from the text of the code: the
// functions are the broker's own.
func TestQueueArgumentsAreOnThePage(t *testing.T) {
	exchanged := readPage(t).section(t, "### 5.6 What daemons exchange")
	args := queueArguments(t)
	if len(args) < 5 {
		t.Errorf("only %v were found: this test shows nothing", args)
	}
	var onPage []string
	for _, name := range code(exchanged.prose()) {
		if strings.HasPrefix(name, "x-") && !slices.Contains(onPage, name) {
			onPage = append(onPage, name)
		}
	}
	sameNames(t, "arguments", onPage, args)
}

func TestPermissionsAreOnThePage(t *testing.T) {
	items := readPage(t).section(t, "### 5.2 Through RabbitMQ").items()
	if broker.OperatorPermissions() != broker.UserPermissions() {
		t.Error("the page says that an operator's account is a user's")
	}
	for role, p := range map[string]broker.Permissions{
		"user and operator": broker.UserPermissions(), "host": broker.HostPermissions(),
	} {
		want := fmt.Sprintf("%s: configure `%s`, write `%s`, read `%s`", role, p.Configure, p.Write, p.Read)
		if !slices.Contains(items, want) {
			t.Errorf("want the line %q", want)
		}
	}
}

// The table of states is that of the code, row by row.
func TestTransitionsAreTheCodes(t *testing.T) {
	rows := readPage(t).table(t, "State")
	var states []string
	for _, row := range rows {
		from := job.State(code(row[0])[0])
		states = append(states, string(from))
		var next []string
		for _, to := range job.States {
			if job.Allowed(from, to) {
				next = append(next, string(to))
			}
		}
		sameNames(t, "from "+string(from), code(row[1]), next)
		if from.Terminal() != (row[1] == "nothing") {
			t.Errorf("%s: terminal is %t, and it may become %s", from, from.Terminal(), row[1])
		}
	}
	var all []string
	for _, s := range job.States {
		all = append(all, string(s))
	}
	sameNames(t, "states", states, all)
}

// Whoever reads that a class is requeued relies on it.
func TestClassesArePaidAsThePageSays(t *testing.T) {
	var named []string
	for _, row := range readPage(t).table(t, "Class") {
		for _, class := range code(row[0]) {
			named = append(named, class)
			v := job.Decide(job.Spec{MaxAttempts: 2, Backoff: []job.Duration{1}}, job.Ended{Class: job.Class(class), Started: true})
			var want string
			switch v.State {
			case job.Retrying:
				want = "on `max_attempts`"
			case job.Queued:
				want = "requeued, at no cost"
			default:
				want = "`" + string(v.State) + "`"
			}
			if !strings.HasPrefix(row[2], want) {
				t.Errorf("%s: the page says %q, the code %q", class, row[2], want)
			}
		}
	}
	sameNames(t, "classes", named, readSource(t, "daemon/job/class.go").of(t, "Class"))
}

// Every method that reads or changes the ledger has its place in chapter 6.
func TestLedgerMethodsAreNamed(t *testing.T) {
	documents := readPage(t).section(t, "## 6. The ledger's documents")
	named := code(documents.prose())
	methods := reflect.TypeFor[*ledger.Ledger]()
	for i := range methods.NumMethod() {
		if name := methods.Method(i).Name; !slices.Contains(named, name) && name != "ClaimByFence" { // planted
			t.Errorf("the method %s is not named", name)
		}
	}
}

// The table of verbs is that of the protocol, with what each takes and gives.
func TestVerbsAreTheProtocols(t *testing.T) {
	p := readPage(t).section(t, "### 5.4 Requests")
	types := readSource(t, documented...).structs
	var verbs []string
	for _, row := range p.table(t, "Verb") {
		verb := code(row[0])[0]
		verbs = append(verbs, verb)
		args, reply := code(row[1]), code(row[2])
		if row[1] != "none" && (len(args) != 1 || types[args[0]] == nil) || len(reply) != 1 || types[reply[0]] == nil {
			t.Errorf("%s: args %s and data %s name no types", verb, row[1], row[2])
		}
		handler := reflect.TypeFor[control.Handler]()
		name := ""
		for word := range strings.SplitSeq(verb, "_") {
			name += strings.ToUpper(word[:1]) + word[1:]
		}
		method, ok := handler.MethodByName(name)
		if !ok {
			t.Errorf("%s: no handler does it", verb)
			continue
		}
		if out := method.Type.Out(0); out.Kind() == reflect.Struct && out.Name() != reply[0] {
			t.Errorf("%s: the page says that it gives %s, the code %s", verb, reply[0], out.Name())
		}
		last := method.Type.In(method.Type.NumIn() - 1)
		if strings.HasSuffix(last.Name(), "Args") && (len(args) == 0 || last.Name() != args[0]) {
			t.Errorf("%s: the page says that it takes %s, the code %s", verb, row[1], last.Name())
		}
	}
	sameNames(t, "verbs", verbs, readSource(t, "daemon/control/api.go", "daemon/control/operate.go").of(t, "Verb"))
	var codes []string
	for _, row := range p.table(t, "Code") {
		codes = append(codes, code(row[0])...)
	}
	var inCode []string
	for _, c := range control.Codes() {
		inCode = append(inCode, string(c))
	}
	sameNames(t, "error codes", codes, inCode)
}

// The times are the built-in defaults.
func TestTimesAreTheDefaults(t *testing.T) {
	rows := readPage(t).table(t, "Key")
	if len(rows) < 5 {
		t.Error("hardly any time was found: this test shows nothing")
	}
	for _, row := range rows {
		key := code(row[0])[0]
		want, err := time.ParseDuration(code(row[1])[0])
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		value, ok := setting(reflect.ValueOf(config.Default()), strings.Split(key, "."))
		if got, isTime := value.(job.Duration); !ok || !isTime || got.Std() != want {
			t.Errorf("%s is %v, and %s on the page", key, value, want)
		}
	}
	if grace := (config.Lease{TTL: job.Duration(time.Hour)}).Grace(); grace != 36*time.Second {
		t.Errorf("the grace of an hour is %s, and 1 %% on the page", grace)
	}
}

// setting returns a value of the configuration by its key in the file.
func setting(v reflect.Value, path []string) (any, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("toml") != path[0] {
			continue
		}
		if len(path) == 1 {
			return v.Field(i).Interface(), true
		}
		return setting(v.Field(i), path[1:])
	}
	return nil, false
}
