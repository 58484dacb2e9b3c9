//! Pure functions on IP packets: fragmentation, ICMP errors, hop limit, tunnel headers.
