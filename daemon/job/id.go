package job

import (
	"fmt"

	"github.com/google/uuid"
)

// ID is a job's UUID in its canonical, lower-case form: version 7 where the
// client picked it, version 5 of (submitter, key) where the job has a key, and
// version 5 of the old ID where it repeats a terminal job.
type ID string

// keyNamespace is the UUID namespace of keyed jobs. It must never change: the
// same (submitter, key) has to give the same ID for as long as ledgers live.
var keyNamespace = uuid.MustParse("6e1a3a6c-91a0-5c43-8f55-0f7f6f5b3a10")

// NewID returns a fresh version 7 ID; IDs made later on one machine sort later.
func NewID() ID {
	id, err := uuid.NewV7()
	if err != nil {
		panic("the kernel's random source failed: " + err.Error())
	}
	return ID(id.String())
}

// KeyID returns the ID of the job that submitter names key. The parts are
// length-prefixed, so no two pairs share a name.
func KeyID(submitter, key string) ID {
	name := fmt.Sprintf("%d:%s:%s", len(submitter), submitter, key)
	return ID(uuid.NewSHA1(keyNamespace, []byte(name)).String())
}

// keyed reports whether the ID is of the version that KeyID and RequeueID make.
// Nobody may choose such an ID: it could be the ID of another submitter's keyed
// job, or of the requeue of one.
func (id ID) keyed() bool {
	u, err := uuid.Parse(string(id))
	return err == nil && u.Version() == 5
}

// ParseID accepts a UUID in canonical form and nothing else, so that one job
// cannot be named in two ways.
func ParseID(s string) (ID, error) {
	id, err := uuid.Parse(s)
	if err != nil || id.String() != s {
		return "", fmt.Errorf("%q is no job ID: want a UUID in lower case, as gpuqctl submit prints it", s)
	}
	return ID(s), nil
}

// requeueNamespace is the UUID namespace of requeues. It must never change: a
// request to requeue a job that is sent again has to give the same ID.
var requeueNamespace = uuid.MustParse("3b9c6f0e-5d0c-5f5e-9a57-0a6a4f0d7c21")

// RequeueID returns the ID of the job that repeats a terminal one: always the
// same, so that a job is requeued once, however often that is asked for.
func RequeueID(old ID) ID { return ID(uuid.NewSHA1(requeueNamespace, []byte(old)).String()) }
