"""C++ that ties kernels to the executor: an entry for each, and the tables that it reads."""

from __future__ import annotations

from collections.abc import Collection

from .translation import POSITIONS, Translation

_SAME = {
    "dispatch_threads_per_threadgroup": "threads_per_threadgroup",
    "thread_execution_width": "threads_per_simdgroup",
}


def entries(source: Translation, chosen: Collection[str]) -> str:
    """C++ that hands each chosen kernel its arguments, and the tables of kernels and function constants."""
    out = ["using namespace metal;"]
    rows = []
    for number, name in enumerate(chosen):
        kernel = source.kernels[name]
        kind, arguments, described = f"msl_f{number}", [], []
        for at, parameter in enumerate(kernel.parameters):
            own = f"<{kind},{at}>"
            if parameter.binding in ("buffer", "constant", "threadgroup"):
                where = "threadgroups" if parameter.binding == "threadgroup" else "buffers"
                how = "msl_reference" if parameter.reference else "msl_pointer"
                arguments.append(f"metal::{how}{own}(t->{where}[{parameter.index}])")
                space = {"buffer": "MSL_BUFFER", "constant": "MSL_CONSTANT_BUFFER"}.get(
                    parameter.binding, "MSL_THREADGROUP_ARGUMENT"
                )
                d = f"metal::msl_describe{own}"
                described.append(f'{{{space},{parameter.index},{d}::size,{d}::whole,{d}::writable,"{parameter.name}"}}')
            else:
                name_ = _SAME.get(parameter.binding, parameter.binding)
                arguments.append(f"metal::msl_position{own}({'' if name_ in POSITIONS else '&'}t->{name_})")
        # one line each, at the place of the kernel: what is wrong with an instantiation is said there
        path = kernel.file.replace("\\", "\\\\").replace('"', '\\"')
        out += [
            f'# {kernel.line} "{path}"',
            f"using {kind} = decltype(&{kernel.function});"
            f' extern "C" void msl_run_{number}(const msl_thread *t) {{ {kernel.function}({", ".join(arguments)}); }}'
            f" static const msl_parameter msl_p{number}[] = {{{', '.join([*described, '{}'])}}};",
        ]
        rows.append(f'{{"{kernel.host_name}", msl_run_{number}, msl_p{number}, {len(described)}}}')
    out.append('# 1 "<entries>" 3')
    table = [
        f'{{(int)({number}), sizeof({name}), metal::msl_code<{source.types[name]}>::value, "{name}", (void *)&{name},'
        f" (unsigned char *)&{name}_msl_defined}}"
        for name, number in source.constants.items()
    ]
    out.append(f'extern "C" const msl_kernel msl_kernels[] = {{{", ".join([*rows, "{}"])}}};')
    out.append(f'extern "C" const int msl_kernel_count = {len(rows)};')
    out.append(f'extern "C" const msl_constant msl_constants[] = {{{", ".join([*table, "{}"])}}};')
    out.append(f'extern "C" const int msl_constant_count = {len(table)};')
    return "\n".join(out) + "\n"


def storage(source: Translation) -> str:
    """C that holds the function constants: apart, so that the compiler takes their values for unknown."""
    return "".join(
        f"_Alignas(16) unsigned char {name}[32]; unsigned char {name}_msl_defined;\n" for name in source.constants
    )
