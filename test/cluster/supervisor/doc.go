// Package supervisor keeps processes running: it starts again what dies, with a
// growing pause, keeps down what it is told to, and finds its processes again
// after it was itself killed.
//
// One goroutine per unit moves it through its phases:
//
//	          ready              ended or not ready
//	starting ───────▶ running ────────────────────────▶ pausing
//	   ▲ ▲               │                                 │
//	   │ └───────────────┼───────── after the pause ───────┘
//	 Start            KeepDown
//	   │                 ▼
//	   └────────────── down
package supervisor
