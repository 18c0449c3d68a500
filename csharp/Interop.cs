using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;

namespace Cmcl.CSharp;

/// <summary>Between F#'s collections, results and functions and those of C#.</summary>
internal static class Interop
{
    public static FSharpList<T> ToFSharpList<T>(this IEnumerable<T> items) => ListModule.OfSeq(items);

    /// <summary>The value, or all faults as one <see cref="CmclException"/>.</summary>
    public static T OrFaults<T>(this FSharpResult<T, FSharpList<Fault>> result) => Check.getAll(result);

    public static FSharpOption<T> ToOption<T>(this T? value)
        where T : struct => value is { } some ? FSharpOption<T>.Some(some) : FSharpOption<T>.None;

    public static T? ToNullable<T>(this FSharpOption<T>? option)
        where T : struct => option is null ? null : option.Value;
}
