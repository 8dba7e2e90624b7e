package seal

import "math/bits"

// padme is the Padmé length of n (Nikitin et al., "Reducing metadata leakage from encrypted files", PoPETs 2019):
// n rounded up so that at most O(log log n) bits of it show. It adds at most 12% and is idempotent.
func padme(n int) int {
	mask := 1<<padmeBits(n) - 1
	return (n + mask) &^ mask
}

// padmeBits is the number of low bits that the Padmé length of n has as zeros.
func padmeBits(n int) int {
	if n < 2 {
		return 0
	}
	e := bits.Len(uint(n)) - 1
	return e - bits.Len(uint(e))
}
