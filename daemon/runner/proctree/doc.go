// Package proctree finds, freezes and ends all processes of one attempt, with
// what Linux offers: a cgroup v2 of its own where one can be had, else the
// parent links, session and environment that /proc shows.
package proctree
