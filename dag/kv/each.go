package kv

import "context"

// eachPage is how many pairs Each reads in one transaction.
const eachPage = 256

// Each calls fn for all pairs of a bucket, in order, in many short transactions: what changes meanwhile may be missed or not. It
// ends with ctx. k and v are valid during the call.
func Each(ctx context.Context, db DB, bucket string, fn func(k, v []byte)) error {
	var from []byte
	for {
		n := 0
		err := db.View(func(tx Tx) error {
			return tx.Scan(bucket, from, func(k, v []byte) bool {
				fn(k, v)
				from = append(append(from[:0:0], k...), 0)
				n++
				return n < eachPage
			})
		})
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if n < eachPage {
			return nil
		}
	}
}
