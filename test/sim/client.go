package sim

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/test/history"
)

// user submits every job of a plan.
const user = "ada"

// submission is the job as its message.
func (j *Job) submission() []byte {
	spec := job.DefaultSpec()
	spec.Command = []string{"train"}
	spec.GPUs, spec.MaxAttempts = j.GPUs, j.MaxAttempts
	spec.GPUMemory, spec.MinGPUMemory, spec.GPUModel = int64(j.ShareGiB<<30), int64(j.LeastGiB<<30), j.Model
	spec.TimeLimit, spec.Expires, spec.Grace = job.Duration(j.TimeLimit), job.Duration(j.Expires), job.Duration(3*time.Second)
	if len(j.Backoff) > 0 {
		spec.Backoff = nil
		for _, d := range j.Backoff {
			spec.Backoff = append(spec.Backoff, job.Duration(d))
		}
	}
	body, err := json.Marshal(job.Submission{Schema: job.Schema, ID: j.ID, Spec: spec})
	if err != nil {
		panic("a submission is plain data: " + err.Error())
	}
	return body
}

// submit sends a job, under one ID, until it is confirmed.
func (s *site) submit(j *Job) {
	if !s.pause(j.At) {
		return
	}
	body, socket := j.submission(), j.Via != ""
	for {
		send := s.submitByBroker
		if socket {
			send = func(body []byte) error { return s.submitLocally(j, body) }
		}
		if send(body) == nil {
			s.world.Do(func() {
				s.confirmed[j.ID] = true
				s.awaited--
				s.world.Record(history.Event{Kind: history.Submitted, Job: j.ID})
			})
			return
		}
		socket = false // who cannot reach a daemon on his host asks the broker
		if !s.pause(s.world.Between(time.Second, 3*time.Second, string(j.ID), "again")) {
			return
		}
	}
}

var errNoDaemon = errors.New("simulated: no daemon listens")

func (s *site) submitLocally(j *Job, body []byte) error {
	d := s.host(j.Via).running()
	if d == nil {
		return errNoDaemon
	}
	ctx, cancel := context.WithTimeout(s.over, 10*time.Second)
	defer cancel()
	_, err := d.agent.Submit(ctx, control.Caller{User: user, Via: control.ViaSocket}, body)
	if gone := d.process.Wait(); gone != nil {
		return gone // its answer died with it
	}
	return err
}

func (s *site) submitByBroker(body []byte) error {
	ctx, cancel := context.WithTimeout(s.over, 10*time.Second)
	defer cancel()
	answer, err := s.queue.Submit(ctx, s.users, body, user)
	if err != nil {
		return err
	}
	var reply control.Response
	if err := json.Unmarshal(answer, &reply); err != nil {
		return err
	}
	if reply.Error != nil {
		return reply.Error
	}
	return nil
}

// kill asks one daemon after another to kill a job, until one has heard.
func (s *site) kill(j *Job) {
	if !s.pause(j.KillAt) {
		return
	}
	for n := 0; ; n++ {
		err := s.ask(n, func(ctx context.Context, a *agent.Agent) error {
			_, err := a.Kill(ctx, control.Caller{User: user, Via: control.ViaSocket}, control.KillArgs{ID: j.ID})
			return err
		})
		if err == nil || !s.pause(s.world.Between(time.Second, 2*time.Second, string(j.ID), "kill")) {
			return
		}
	}
}

// ask puts a request to a host's daemon through its socket; n picks the host.
func (s *site) ask(n int, request func(context.Context, *agent.Agent) error) error {
	d := s.hosts[n%len(s.hosts)].running()
	if d == nil {
		return errNoDaemon
	}
	ctx, cancel := context.WithTimeout(s.over, 10*time.Second)
	defer cancel()
	err := request(ctx, d.agent)
	if gone := d.process.Wait(); gone != nil {
		return gone // its answer died with it
	}
	return err
}
