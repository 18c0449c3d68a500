namespace Cmcl

open System
open System.Globalization
open System.IO
open Parquet
open Parquet.Schema

/// A column of a table, in its rows' order.
[<RequireQualifiedAccess>]
type Column =
    | Texts of string list
    | Wholes of int list
    | Numbers of float list
    /// Numbers where all that there is are numbers, with None where a row has none.
    | Some of float option list
    | SomeTexts of string option list

/// The tables of a sweep folder: `results.csv`, the same as `results.parquet`, and `failures.csv`.
[<RequireQualifiedAccess>]
module SweepTables =
    let private number (text: string) : float option =
        match Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture) with
        | true, x when Double.IsFinite x -> Some x
        | _ -> None

    let private optional (values: string option list) : Column =
        let numbers = values |> List.map (Option.bind number)

        if List.forall2 (fun (v: string option) n -> v.IsNone = Option.isNone n) values numbers then
            Column.Some numbers
        else
            Column.SomeTexts values

    /// A line for every figure of every finished cell: what `results.csv` of a run has, then where the cell comes from, then a column
    /// for each option that any of them uses, empty for those that do not.
    let columns (cells: (SweepCell * Row list) list) : (string * Column) list =
        let names =
            [ for c, _ in cells do
                  yield! List.map fst (SweepFolder.options c) ]
            |> List.distinct
            |> List.sort

        let lines =
            [ for c, rows in cells do
                  let options = Map.ofList (SweepFolder.options c)

                  for r in rows @ Results.aggregates rows -> c, r, options ]

        let of' f = [ for line in lines -> f line ]

        [ "stream", Column.Texts(of' (fun (_, r, _) -> r.Stream))
          "method", Column.Texts(of' (fun (_, r, _) -> r.Method))
          "seed", Column.Wholes(of' (fun (_, r, _) -> r.Seed))
          "step", Column.Texts(of' (fun (_, r, _) -> fst (When.texts r.When)))
          "task", Column.Texts(of' (fun (_, r, _) -> snd (When.texts r.When)))
          "metric", Column.Texts(of' (fun (_, r, _) -> r.Metric))
          "value", Column.Numbers(of' (fun (_, r, _) -> r.Value))
          "order", Column.Wholes(of' (fun (c, _, _) -> c.Cell.Order))
          "split", Column.Texts(of' (fun (c, _, _) -> c.Job.Split))
          "cell", Column.Texts(of' (fun (c, _, _) -> c.Job.Hash))
          for name in names do
              $"option.{name}", optional (of' (fun (_, _, options) -> Map.tryFind name options)) ]

    let private texts (column: Column) : string list =
        match column with
        | Column.Texts all -> all
        | Column.Wholes all -> List.map string all
        | Column.Numbers all -> List.map Csv.number all
        | Column.Some all -> List.map (Option.map Csv.number >> Option.defaultValue "") all
        | Column.SomeTexts all -> List.map (Option.defaultValue "") all

    let private writeCsv (path: string) (columns: (string * Column) list) : Result<unit, Fault list> =
        let lines = columns |> List.map (snd >> texts) |> List.transpose
        Files.writeText path (Csv.write (List.map fst columns) id lines)

    let private writeParquet (path: string) (columns: (string * Column) list) : Result<unit, Fault list> =
        let field (name, column) : Field =
            match column with
            | Column.Texts _ -> DataField(name, typeof<string>, Nullable false)
            | Column.Wholes _ -> DataField(name, typeof<int>)
            | Column.Numbers _ -> DataField(name, typeof<float>)
            | Column.Some _ -> DataField(name, typeof<Nullable<float>>)
            | Column.SomeTexts _ -> DataField(name, typeof<string>, Nullable true)

        let schema = ParquetSchema(columns |> List.map field)

        let put (group: ParquetRowGroupWriter) (field: DataField, (_, column)) =
            task {
                match column with
                | Column.Texts all -> do! group.WriteAsync(field, Array.ofList all)
                | Column.Wholes all -> do! group.WriteAsync<int>(field, ReadOnlyMemory(Array.ofList all))
                | Column.Numbers all -> do! group.WriteAsync<float>(field, ReadOnlyMemory(Array.ofList all))
                | Column.Some all -> do! group.WriteAsync<float>(field, ReadOnlyMemory [| for x in all -> Option.toNullable x |])
                | Column.SomeTexts all -> do! group.WriteAsync(field, [| for x in all -> Option.toObj x |])
            }

        let write (file: Stream) =
            task {
                use! writer = ParquetWriter.CreateAsync(schema, file)
                use group = writer.CreateRowGroup()

                for pair in Seq.zip (schema.GetDataFields()) columns do
                    do! put group pair
            }

        Files.writeWhole path (fun file -> (write file).GetAwaiter().GetResult())

    let private failuresHeader = [ "cell"; "stream"; "method"; "order"; "seed"; "state"; "reason" ]

    /// Writes the three tables into the folder: everything that is finished, and whatever is not, with its reason.
    let write (folder: string) (states: (SweepCell * CellState<CellRecord>) list) : Result<unit, Fault list> =
        let finished =
            [ for c, state in states do
                  match state with
                  | CellState.Finished record -> c, SweepCell.rows c record
                  | _ -> () ]

        let failures =
            [ for c, state in states do
                  match CellState.reason state with
                  | Some reason -> c, CellState.word state, reason
                  | None -> () ]

        let fields (c: SweepCell, state: string, reason: string) =
            [ c.Job.Hash; c.Cell.Stream; c.Cell.Method; string c.Cell.Order; string c.Cell.Seed; state; reason ]

        let table = columns finished
        let path name = Path.Combine(folder, name)

        [ writeCsv (path "results.csv") table
          writeParquet (path "results.parquet") table
          Files.writeText (path "failures.csv") (Csv.write failuresHeader fields failures) ]
        |> Check.all
        |> Result.map ignore
