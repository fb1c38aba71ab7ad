"""`morphnic demo`: the same input under a static partition and under the loop, with figures and a report."""
