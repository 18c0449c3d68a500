module Cmcl.Tests.VocabularyTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private message (fault: Fault) = fault.Message

let tests =
    testList
        "Vocabulary"
        [ test "a slip of the keyboard gets a suggestion, anything else the list" (fun () ->
              let known = [ "vanilla"; "dns"; "dns-soft"; "joint" ]
              let told given = message (Fault.Unknown("method", given, known))

              for given, meant in
                  [ "vanila", "vanilla"; "Vanilla", "vanilla"; "dsn-soft", "dns-soft"; "dn", "dns"; "jont", "joint" ] do
                  Expect.stringContains (told given) $"did you mean '{meant}'" given

              let among known given = message (Fault.Unknown("command", given, known))

              for given, meant in [ "rnu", "run"; "comapre", "compare"; "sweeps", "sweep"; "form", "format"; "soft", "dns-soft" ] do
                  Expect.stringContains
                      (among [ "run"; "compare"; "sweep"; "format"; "dns-soft" ] given)
                      $"did you mean '{meant}'"
                      given

              for given in [ "ewc"; "replay"; "" ] do
                  Expect.isFalse ((told given).Contains "did you mean") given
                  Expect.stringContains (told given) "vanilla, dns, dns-soft, joint" given)

          test "a word that an option does not take gets a suggestion among those that it takes" (fun () ->
              let told given = message (Fault.NotOneOf("place", given, [ "gradient"; "update"; "eigenbasis" ]))

              Expect.equal
                  (told "gradiant")
                  "place takes gradient, update or eigenbasis, not 'gradiant'; did you mean 'gradient'?"
                  "a slip"

              Expect.equal (told "head") "place takes gradient, update or eigenbasis, not 'head'." "no slip")

          test "options in a sentence are written as whoever reads it wrote them" (fun () ->
              let fault =
                  Fault.Contradiction(
                      $"""{Mention.setting "exact" "on"} needs {Mention.option "sides"}""",
                      $"""use {Mention.setting "sides" "dual"}"""
                  )

              Expect.equal fault.Message "exact=on needs sides; use sides=dual." "plain"

              let flags name value = value |> Option.map (fun v -> $"--{name} {v}") |> Option.defaultValue $"--{name}"
              Expect.equal (fault.WithOptions flags).Message "--exact on needs --sides; use --sides dual." "as flags")

          test "every fault says what came and what to do" (fun () ->
              for fault, parts in
                  [ Fault.BatchTooLarge("esc50", 64, 20), [ "64"; "20"; "esc50"; "to 20 or less" ]
                    Fault.Occupied "out", [ "'out'"; "--force" ]
                    Fault.RowOutOfRange("'train' of step 2", 7L, 5L), [ "row 7"; "5 rows (0 to 4)" ]
                    Fault.Diverged("dns", 3, "esc50", 2), [ "dns (seed 3)"; "esc50"; "epoch 2"; "(lr)" ]
                    Fault.NonFinite("bank", 4L), [ "bank"; "row 4" ]
                    Fault.Shape("W", "[2 × 3]", "[3 × 2]"), [ "W: expected [2 × 3], got [3 × 2]" ]
                    Fault.UnknownKey("stream.json", "bankz", [ "banks"; "steps" ]), [ "stream.json"; "did you mean 'banks'" ]
                    Fault.MissingKey("stream.json", "steps"), [ "stream.json has no 'steps'" ] ] do
                  for part in parts do
                      Expect.stringContains (message fault) part part)

          test "checks gather every fault and keep the order of values" (fun () ->
              let a, b = Fault.Occupied "a", Fault.Occupied "b"
              Expect.equal (Check.all [ Ok 1; Ok 2; Ok 3 ]) (Ok [ 1; 2; 3 ]) "values"
              Expect.equal (Check.all [ Ok 1; Error [ a ]; Error [ b ] ]) (Error [ a; b ]) "faults"
              Expect.equal (faultOf (fun () -> Check.get (Error [ a; b ]: Result<int, Fault list>))) a "the first, raised"

              let both x y =
                  validated {
                      let! x = x
                      and! y = y
                      return x + y
                  }

              Expect.equal (both (Ok 1) (Ok 2)) (Ok 3) "both"
              Expect.equal (both (Error [ a ]) (Error [ b ])) (Error [ a; b ]) "neither")

          test "names of modalities can name files; a pair has two of them" (fun () ->
              for good in [ "vision"; "text-2"; "a_b" ] do
                  Expect.equal (modality good).Name good good

              for bad in [ ""; "a b"; "a/b"; ".."; "é"; "a|b"; "a#"; String.replicate 65 "a" ] do
                  Expect.isError (Modality.create bad) bad

              let p = Pair.named vision text
              Expect.equal (Pair.members p) [ modality vision; modality text ] "anchor first"
              Expect.equal (Pair.partner (modality vision) p) (modality text) "partner"
              Expect.equal (Pair.partner (modality text) p) (modality vision) "partner"
              Expect.isError (Pair.create (modality vision) (modality vision)) "with itself")

          test "a product of what does not fit is a fault, and the process lives" (fun () ->
              let ones rows columns = torch.ones ([| rows; columns |], dtype = System.Nullable torch.float64)

              match faultOf (fun () -> Tensors.product (ones 2L 3L) (ones 2L 3L)) with
              | Fault.Shape(_, expected, actual) ->
                  Expect.equal expected "[3 × any]" "expected"
                  Expect.equal actual "[2 × 3]" "actual"
              | other -> failtest other.Message

              match faultOf (fun () -> Tensors.requireMatrix "x" 2L -1L (torch.ones 3L)) with
              | Fault.Shape("x", "[2 × any]", "[3]") -> ()
              | other -> failtest other.Message)

          test "scopes keep what they say and free the rest" (fun () ->
              let left =
                  leaked (fun () ->
                      use scope = torch.NewDisposeScope()
                      let x = torch.ones (2L, 2L)
                      let y = Tensors.scoped (fun () -> (x .+ x) * (x .+ x))
                      Expect.equal (item (y.sum ())) 16.0 "kept")

              Expect.equal left 0L "freed"

              Expect.equal
                  (leaked (fun () -> Tensors.scoped (fun () -> torch.ones (2L, 2L) .+ torch.ones (2L, 2L)) |> ignore))
                  1L
                  "only the result is the caller's")

          property "norms and differences by hand" (fun c ->
              let a, b = normal c "a" c.N c.D, normal c "b" c.N c.D
              let norm (t: torch.Tensor) = values t |> Array.concat |> Array.sumBy (fun x -> x * x) |> sqrt
              near "norm" tight (Tensors.norm a) (norm a)
              near "difference" tight (Tensors.relativeDifference a b) (norm (a - b) / norm b)
              near "against zero" tight (Tensors.relativeDifference a (torch.zeros_like a)) (norm a)
              Expect.isTrue (Tensors.isFinite a) "finite"

              match faultOf (fun () -> Tensors.requireFinite "x" (torch.cat ([| a; b / number 0.0 |], 0L))) with
              | Fault.NonFinite("x", row) -> Expect.equal row c.N "the first row that is not"
              | other -> failtest other.Message)

          property "blocks of rows are all rows in order, each of 2²⁰ numbers at most or one row" (fun c ->
              let rows, columns = c.N * c.N * c.N, 1L <<< (3 * int c.D)
              let blocks = Tensors.rowBlocks (torch.zeros(1L).expand(rows, columns))

              Expect.equal
                  (blocks |> List.collect (fun (first, count) -> [ first .. first + count - 1L ]))
                  [ 0L .. rows - 1L ]
                  "rows"

              for _, count in blocks do
                  Expect.isTrue (count = 1L || count > 1L && count * columns <= (1L <<< 20)) "size")

          test "the first row that is not finite is found in whatever block it is" (fun () ->
              for dtype in [ torch.float16; torch.float32; torch.float64 ] do
                  let x = torch.ones (5000L, 600L, dtype = System.Nullable dtype)
                  Expect.isNone (Tensors.nonFiniteRow x) "finite"
                  let last = (Tensors.rowBlocks x)[1] |> fst

                  for value, row in [ nan, 4999L; infinity, last; -infinity, last - 1L; nan, 0L ] do
                      x[row, 599L] <- torch.tensor value
                      Expect.equal (Tensors.nonFiniteRow x) (Some row) $"{value} in row {row}, {dtype}") ]
