@0xd1f27c52f6f1b0c4;

interface Work {
  add @0 (a :UInt64, b :UInt64) -> (number :UInt64);
  upload @1 (bytes :Data) -> (number :UInt64);
  download @2 (len :UInt32, seed :UInt8) -> (bytes :Data);
  mixed @3 (mixed :Mixed) -> (number :UInt64);
}

struct Mixed {
  id @0 :UInt64;
  price @1 :Float64;
  active @2 :Bool;
  name @3 :Text;
  note @4 :Text;  # May be null.
  tags @5 :List(Text);
  counts @6 :List(UInt32);
  points @7 :List(Point);
}

struct Point {
  x @0 :Float64;
  y @1 :Float64;
}
