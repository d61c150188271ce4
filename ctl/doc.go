// Command gpuqctl is the hand of users and operators on the queue: flat verbs,
// tables for people, --json for programs, results on stdout and everything else
// on stderr.
//
// To add a verb: a file of its name with a function that returns its command,
// the function's name in the list of root.go and the verb's in its groups, what
// Tab completes (complete.go), its exit codes in TestExitCodes, and its help in
// testdata/help (go test ./ctl -update).
package main
