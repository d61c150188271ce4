package history

import (
	"fmt"
	"strings"

	"gpuqd/daemon/job"
)

// Story is the history of one job for a person: a line per event, with its time
// from the first event of all, and what was broken until the job's last event.
func Story(events []Event, id job.ID) string {
	var b strings.Builder
	fmt.Fprintf(&b, "job %s\n", id)
	last := -1
	for i := range events {
		if events[i].Job == id {
			last = i
		}
	}
	for i := range events[:last+1] {
		if e := &events[i]; e.Job == id || e.Job == "" {
			fmt.Fprintf(&b, "%10.3fs  %s\n", e.At.Sub(events[0].At).Seconds(), tell(e))
		}
	}
	return b.String()
}

// tell says an event in words.
func tell(e *Event) string {
	tag := fmt.Sprintf("message %d/%d", e.Tag.Generation, e.Tag.Delivery)
	switch e.Kind {
	case Submitted:
		return "its submission is confirmed"
	case Changed:
		return tellChange(e)
	case Republished:
		return "may be published anew" + when(e.Needless, ", though its message is in its queue")
	case Published:
		return fmt.Sprintf("%s published a message", e.Host)
	case Taken:
		return fmt.Sprintf("%s takes %s", e.Host, tag)
	case Acked:
		return fmt.Sprintf("%s acks %s", e.Host, tag)
	case Returned:
		return fmt.Sprintf("%s of %s is back in its queue", tag, e.Host)
	case SetAside:
		return "a message is set aside: " + e.Reason
	case Began:
		return fmt.Sprintf("attempt %d begins on %s", e.Attempt, e.Host) + when(len(e.Devices) > 0, " with "+strings.Join(e.Devices, ", "))
	case Halted:
		return fmt.Sprintf("attempt %d on %s is frozen", e.Attempt, e.Host)
	case Went:
		return fmt.Sprintf("attempt %d on %s goes on", e.Attempt, e.Host)
	case Finished:
		if e.Complete {
			return fmt.Sprintf("attempt %d on %s comes to its end, code %d", e.Attempt, e.Host, e.Code)
		}
		return fmt.Sprintf("attempt %d on %s dies, code %d", e.Attempt, e.Host, e.Code)
	case Held:
		return "a person is told that it waits until its release"
	case Released:
		return "a person asks for its release"
	case Drained:
		return fmt.Sprintf("*** %s is drained", e.Host) + ofDevice(e)
	case Learnt:
		return fmt.Sprintf("*** %s learns that it is drained", e.Host) + ofDevice(e)
	case Undrained:
		return fmt.Sprintf("*** %s is not drained any more", e.Host) + ofDevice(e)
	case Fault:
		return "*** fault: " + e.Class + when(e.Reason != "", ": "+e.Reason) + when(e.Reason == "" && e.Host != "", " on "+e.Host)
	case Healed:
		return "*** nothing is broken any more"
	case SessionReleased:
		return fmt.Sprintf("*** %s has released its session", e.Host)
	case Paused:
		return fmt.Sprintf("*** %s stands still", e.Host)
	case Resumed:
		return fmt.Sprintf("*** %s goes on", e.Host)
	}
	return e.String()
}

func ofDevice(e *Event) string {
	return when(len(e.Devices) > 0, ", as to "+strings.Join(e.Devices, ", "))
}

func tellChange(e *Event) string {
	text := "is " + string(e.State)
	if e.Host != "" {
		text += " (" + e.Host + ")"
	}
	if e.Attempt > 0 {
		text += fmt.Sprintf(", attempt %d, fence %d", e.Attempt, e.Fence)
	}
	text += when(e.Class != "", ", class "+e.Class)
	text += when(e.Reason != "", ": "+e.Reason)
	return text + when(e.ID != "", " ["+e.ID+"]")
}

func when(is bool, text string) string {
	if is {
		return text
	}
	return ""
}
