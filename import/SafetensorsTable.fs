namespace Cmcl

open System
open System.IO
open TorchSharp

/// Tensors of a `.safetensors` file by their names.
[<RequireQualifiedAccess>]
module SafetensorsTable =
    let private reader (path: string) (starts: Map<string, int64>) : RowReader =
        let stream = File.OpenRead path

        { new RowReader with
            member _.Rows(array, first, count) =
                let rows = torch.empty ([| count; yield! array.Shape.Tail |], dtype = Nullable array.Type)

                if count > 0L then
                    stream.Position <- starts[array.Name] + first * (rows.NumberOfElements / count * rows.ElementSize)

                Npy.overBytes (rows.reshape -1L) (fun piece -> stream.ReadExactly piece.bytes)
                rows
          interface IDisposable with
              member _.Dispose() = stream.Dispose() }

    /// The table of a file: a column for every tensor, or `id` and `features` where every tensor is the features of one sample. Faults:
    /// `Missing`, `Unreadable`.
    let read (path: string) : Result<Table, Fault list> =
        Safetensors.heads path
        |> Result.map (fun heads ->
            let contents =
                [ for name, dtype, shape, _ in heads do
                      [ name ],
                      Content.Numbers
                          { Name = name
                            Type = dtype
                            Shape = List.ofArray shape
                            Height = 1L } ]

            Arrays.table path "." contents (fun () -> reader path (Map [ for name, _, _, start in heads -> name, start ])))
